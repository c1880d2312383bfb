"""Reinforce a data set, once: survey the input, do each shard, write the manifest.

For example::

    from mcliplib import reinforce
    settings = reinforce.ReinforceSettings(augmentations=10, captions=0)
    result = reinforce.run("shards/{000000..000009}.tar", "reinforced", teachers=[teacher], settings=settings)

The run may be killed at any point: with `resume=True` it goes on after the last shard that was finished, and the result
is the same to the byte.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

from tqdm import tqdm

from mcliplib.errors import UserError
from mcliplib.reinforce import manifest
from mcliplib.reinforce.ray_engine import run_ray
from mcliplib.reinforce.settings import Captioner, ReinforceSettings, Teacher
from mcliplib.reinforce.sources import Input, find_sources
from mcliplib.reinforce.store import Store
from mcliplib.reinforce.work import STAGES, ShardDone, ShardWorker, Task, survey
from mcliplib.threads import usable_cores

Engine = Literal["local", "ray"]
Device = Literal["auto", "cpu", "cuda"]
Records = dict[int, dict[str, Any]]


def run_local(
    tasks: Sequence[Task], worker: ShardWorker, store: Store, advance: Callable[[int], object]
) -> Generator[tuple[Task, ShardDone], None, None]:
    """Each task with what became of it, as soon as its shard is written."""
    for task in tasks:
        yield task, worker.run(task, store, advance)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        output: the folder.
        samples: in the reinforced set.
        skipped: samples left out, by reason.
        made: samples that this call made; the others were there when it resumed.
        seconds: of this call, the survey included.
        stages: seconds that the engine's main threads spent on `wait` (for decoding and augmenting), `captioner`,
            `teachers` and `write`; with Ray the sum over the actors.
    """

    output: str
    samples: int
    skipped: dict[str, int]
    made: int
    seconds: float
    stages: dict[str, float]


def run(
    input: Input,
    output: str | os.PathLike[str],
    *,
    teachers: Sequence[Teacher],
    captioner: Captioner | None = None,
    settings: ReinforceSettings = ReinforceSettings(),  # noqa: B008 (frozen)
    engine: Engine = "local",
    device: Device = "auto",
    workers: int | None = None,
    max_skipped: float = 0.1,
    resume: bool = False,
    progress: bool = True,
) -> RunResult:
    """Reinforce the input into shards `shard-NNNNNN.tar` and a `manifest.json`.

    Args:
        input: shards, lists or folders, as `mcliplib.reinforce.sources` describes them.
        output: a folder, also as a URL of fsspec.
        teachers: at least one; their embeddings stand side by side in this order.
        captioner: makes the synthetic captions; without one there are none, whatever the settings say.
        settings: what decides the content.
        engine: "local", or "ray" for several processes or machines.
        device: of Ray's actors (see `mcliplib.reinforce.ray_engine.run_ray`); the local engine leaves the models where
            they are.
        workers: threads that decode and augment (local; by default one a core), or actors (ray).
        max_skipped: largest share (0 to 1) of skipped samples that is accepted.
        resume: go on with what is in the output folder; also if there is nothing yet, or nothing left to do.
        progress: show samples, rate and remaining time on stderr.

    Raises:
        UserError: bad input; the output holds a run and `resume` is not set, or one with other settings, models or
            input; too many samples skipped (what is done is kept, and the manifest tells of it).
    """
    start = time.perf_counter()
    _check_arguments(teachers, engine, workers, max_skipped)
    settings = settings if captioner else dataclasses.replace(settings, captions=0)
    store = Store(output)
    with store.locked():
        begun = _begun(store, resume)
        named = manifest.identity(teachers, captioner, settings)
        manifest.check_same(begun.get("identity", named), named, store.root)
        with _bar("surveying", None, progress) as bar:
            tasks = survey(find_sources(input, settings.shard_size), bar.update)
        manifest.check_input(begun.get("inputs"), tasks, store.root)
        store.clean()
        if begun.get("status") == "complete" and manifest.is_whole(store, begun, tasks):
            store.remove(manifest.RECORDS)
            counts = begun["counts"]
            return RunResult(store.root, counts["samples"], counts["reasons"], 0, time.perf_counter() - start, {})
        if not begun:
            store.write_json(manifest.MANIFEST, manifest.beginning(named, tasks))
        job = _Job(store, named, tasks, max_skipped)
        worker = ShardWorker(teachers, captioner, settings, workers or usable_cores())
        made, stages = job.run(worker, engine, device, workers, progress)
        counts = job.finish()["counts"]
        return RunResult(store.root, counts["samples"], counts["reasons"], made, time.perf_counter() - start, stages)


class _Job:
    """The shards of a run, those that are done and those that are not."""

    def __init__(self, store: Store, named: Mapping[str, Any], tasks: Sequence[Task], max_skipped: float) -> None:
        self._store, self._named, self._tasks, self._max_skipped = store, dict(named), tasks, max_skipped
        self._records: Records = manifest.finished(store, tasks)
        self._check_share()

    def run(
        self, worker: ShardWorker, engine: Engine, device: Device, workers: int | None, progress: bool
    ) -> tuple[int, dict[str, float]]:
        """Do what is not done; how many samples that made, and the seconds of each stage."""
        todo = [task for task in self._tasks if task.index not in self._records]
        total = sum(task.count for task in self._tasks)
        made, stages = 0, dict.fromkeys(STAGES, 0.0)
        with (
            _bar("reinforcing", total, progress, total - sum(task.count for task in todo)) as bar,
            closing(self._results(todo, worker, engine, device, workers, bar)) as results,
        ):
            for task, done in results:
                self._records[task.index] = manifest.record_of(done)
                self._store.write_json(manifest.record_name(task), self._records[task.index])
                made += done.samples
                stages = {stage: seconds + done.seconds[stage] for stage, seconds in stages.items()}
                self._check_share()
        return made, stages

    def finish(self) -> dict[str, Any]:
        """Write the manifest of the whole set; the records of its shards go, and what dead actors left."""
        self._store.clean()
        content = manifest.whole(self._named, self._tasks, self._records, "complete")
        self._store.write_json(manifest.MANIFEST, content)
        self._store.remove(manifest.RECORDS)
        return content

    def _results(
        self,
        todo: Sequence[Task],
        worker: ShardWorker,
        engine: Engine,
        device: Device,
        workers: int | None,
        bar: tqdm,
    ) -> Generator[tuple[Task, ShardDone], None, None]:
        if engine == "ray" and todo:
            return run_ray(todo, worker, self._store, bar.update, workers, device)
        return run_local(todo, worker, self._store, bar.update)

    def _check_share(self) -> None:
        """Raises a UserError as soon as too many samples are known to be skipped; the manifest then lists them."""
        skipped = sum(manifest.skip_count(task, self._records) for task in self._tasks)
        share = skipped / sum(task.count for task in self._tasks)
        if share <= self._max_skipped:
            return
        content = manifest.whole(self._named, self._tasks, self._records, "incomplete")
        self._store.write_json(manifest.MANIFEST, content)
        first = content["skipped"][0]
        reasons = ", ".join(f"{count} {reason}" for reason, count in content["counts"]["reasons"].items())
        raise UserError(
            f"{share:.0%} of the samples cannot be used, more than the {self._max_skipped:.0%} allowed: {reasons} "
            f"(first: {first['key']} in {first['shard']}); all are listed in {self._store.root}/"
            f"{manifest.MANIFEST}. What is done is kept: resume with a larger share, or repair the input and start anew"
        )


def _check_arguments(teachers: Sequence[Teacher], engine: str, workers: int | None, max_skipped: float) -> None:
    if not teachers:
        raise UserError("a reinforced set needs at least one teacher")
    if engine not in ("local", "ray"):
        raise UserError(f"unknown engine {engine!r}: it is local or ray")
    if workers is not None and workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    if not 0 <= max_skipped <= 1:
        raise UserError(f"max_skipped is a share from 0 to 1, got {max_skipped}")


def _begun(store: Store, resume: bool) -> dict[str, Any]:
    """The manifest of the run that is in the folder; empty where there is none.

    Raises:
        UserError: there is one and it is not to be resumed, or files of something else.
    """
    begun = store.read_json(manifest.MANIFEST, manifest.checked)
    if begun is None:
        if others := [name for name in store.names() if not name.startswith(".")]:
            raise UserError(f"{store.root}: holds {others[0]} and no {manifest.MANIFEST}; name a new or empty folder")
        return {}
    if not resume:
        state = "a finished" if begun.get("status") == "complete" else "an unfinished"
        raise UserError(f"{store.root}: holds {state} run; resume it (--resume), or name another folder")
    return begun


def _bar(what: str, total: int | None, progress: bool, initial: int = 0) -> tqdm:
    return tqdm(
        desc=what,
        total=total,
        initial=initial,
        unit=" samples",
        disable=not progress,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )
