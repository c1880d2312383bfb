"""The shards one after another, in this process."""

from collections.abc import Callable, Generator, Sequence

from mcliplib.reinforce.store import Store
from mcliplib.reinforce.survey import Task
from mcliplib.reinforce.work import ShardDone, ShardWorker


def run_local(
    tasks: Sequence[Task], worker: ShardWorker, store: Store, advance: Callable[[int], object]
) -> Generator[tuple[Task, ShardDone], None, None]:
    """Each task with what became of it, as soon as its shard is written."""
    for task in tasks:
        yield task, worker.run(task, store, advance)
