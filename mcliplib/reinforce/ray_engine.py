"""The shards on a Ray cluster, or on this machine's own: actors hold the teachers, each works on one shard at a time.

All machines of the cluster must see the input and the output under the names that the run is given. An actor that dies
is replaced and its shard done again; as a shard is renamed when it is whole, nobody sees the half of one.
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from mcliplib.errors import UserError, first_line
from mcliplib.reinforce.store import Store
from mcliplib.reinforce.work import ShardDone, ShardWorker, Task

_TRIES = 3  # times that a shard may lose its actor before the shard is suspected


def run_ray(
    tasks: Sequence[Task],
    worker: ShardWorker,
    store: Store,
    advance: Callable[[int], object],
    actors: int | None = None,
    device: str = "auto",
) -> Generator[tuple[Task, ShardDone], None, None]:
    """Each task with what became of it, in the order in which the shards are written.

    Args:
        tasks: the shards to do.
        worker: is pickled and sent to the actors, with its teachers and captioner.
        store: is opened anew by each actor.
        advance: called with a number of samples, when their shard is written.
        device: "auto" shares the cluster's GPUs out among the actors, where it has any, and they compute there; "cuda"
            also insists on them, and "cpu" leaves them alone.
        actors: how many; by default one for each GPU of the cluster, else one for as many cores as torch has threads.

    Raises:
        ray.exceptions.RayError: an actor cannot unpickle its teachers (their modules must be importable there).
        UserError: Ray is not installed, `device` is "cuda" and the cluster has no GPU, a shard fails, or it takes its
            actor with it three times.
    """
    ray = _import_ray()
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    crew = _Crew(ray, worker, store, actors, device)
    try:
        for task, done in _scheduled(crew, tasks):
            advance(task.count)
            yield task, done
    finally:
        crew.dismiss()
        if started:
            ray.shutdown()


class _Crew:
    """The actors, alike and replaceable."""

    def __init__(self, ray: Any, worker: ShardWorker, store: Store, actors: int | None, device: str) -> None:
        resources = ray.cluster_resources()
        cores, gpus = int(resources.get("CPU", 1)), 0 if device == "cpu" else resources.get("GPU", 0)
        if device == "cuda" and not gpus:
            raise UserError("--device cuda: the Ray cluster has no GPU")
        self.size = max(1, actors or int(gpus) or cores // worker.settings.threads)
        threads = max(1, cores // self.size)
        self.ray = ray
        self._store = store
        self._worker = ray.put(dataclasses.replace(worker, workers=threads))
        self._make = ray.remote(_Actor).options(
            num_cpus=min(threads, cores / self.size), num_gpus=min(1.0, gpus / self.size), max_restarts=0
        )
        self._actors: list[Any] = []

    def start_actor(self) -> Any:
        """A new actor."""
        self._actors.append(self._make.remote([self._worker], self._store))
        return self._actors[-1]

    def dismiss(self) -> None:
        """End all actors, also in the midst of a shard."""
        for actor in self._actors:
            self.ray.kill(actor)


class _Actor:
    """Lives in a process of its own.

    It gets its worker with its first shard: an error in unpickling is then that shard's, and not a mysterious death.
    """

    def __init__(self, worker: list[Any], store: Store) -> None:
        self._reference, self._store = worker[0], store
        self._worker: ShardWorker | None = None

    def run(self, task: Task) -> ShardDone:
        """Do one shard."""
        if self._worker is None:
            ray = _import_ray()
            self._worker = ray.get(self._reference)
            if ray.get_gpu_ids():  # the share of one that Ray reserved for this actor, and lets it see alone
                self._worker.to("cuda")
        return self._worker.run(task, self._store)


def _scheduled(crew: _Crew, tasks: Sequence[Task]) -> Generator[tuple[Task, ShardDone], None, None]:
    """Keep every actor busy until all shards are done."""
    waiting, lost = deque(tasks), Counter[int]()
    running: dict[Any, tuple[Task, Any]] = {}
    idle = [crew.start_actor() for _ in range(min(crew.size, len(tasks)))]
    while waiting or running:
        while idle and waiting:
            task, actor = waiting.popleft(), idle.pop()
            running[actor.run.remote(task)] = task, actor
        ready, _ = crew.ray.wait(list(running), num_returns=1)
        task, actor = running.pop(ready[0])
        try:
            done = _result(crew.ray, ready[0])
        except _ActorLostError as error:
            lost[task.index] += 1
            if lost[task.index] == _TRIES:
                raise UserError(f"{task.source.name}: its worker died {_TRIES} times ({error})") from error
            waiting.appendleft(task)
            idle.append(crew.start_actor())
            continue
        idle.append(actor)
        yield task, done


class _ActorLostError(Exception):
    """The process of an actor ended before its shard was done."""


def _result(ray: Any, reference: Any) -> ShardDone:
    errors = ray.exceptions
    try:
        done: ShardDone = ray.get(reference)
        return done
    except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
        raise _ActorLostError(first_line(error)) from error
    except errors.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from error
        raise


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError("the engine ray needs the package ray: pip install 'mcliplib[ray]'") from error
    return ray
