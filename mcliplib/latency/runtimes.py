"""A tower in several runtimes, each in a process of its own, in interleaved turns.

Two runtimes in one process fight over the cores: each keeps threads that spin while they wait for work. So each has a
process (`mcliplib.latency.worker`), which is stopped while the others have their turns; a turn is a run that brings its
data back into the caches and is not counted, and a run that is.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcliplib.errors import UserError
from mcliplib.export.exporting import size_of
from mcliplib.latency import worker
from mcliplib.latency.timing import Measurement, turns

WARM = 2  # runs of a turn, of which the last is timed
_ROUNDS_BEFORE = 3  # turns that are not counted


@dataclass(frozen=True)
class Contender:
    """A tower, as one runtime runs it.

    Attributes:
        name: in tables and records.
        runtime: a name in `worker.LOADERS`.
        path: what it loads.
        precision: what it computes in, where the file does not say so.
        ours: whether its features must be those of the tower that is measured.
    """

    name: str
    runtime: str
    path: Path
    precision: str = "float32"
    ours: bool = True


class Started(NamedTuple):
    """A contender's first answer, and the cost of its process.

    Attributes:
        seconds: from an empty process to the first features: imports, loading, compiling, one run.
        features: [B, D].
        peak_mb: the most memory that it held until the end, in 1e6 bytes; None where the system does not tell.
        bytes: on the disk.
    """

    seconds: float
    features: np.ndarray
    peak_mb: float | None
    bytes: int


@dataclass(frozen=True)
class Race:
    """The result of `race`.

    Attributes:
        measurement: milliseconds.
        started: of each contender.
        failed: why a contender did not take part.
    """

    measurement: Measurement
    started: Mapping[str, Started]
    failed: Mapping[str, str]


def race(
    contenders: Sequence[Contender],
    example: np.ndarray,
    folder: Path,
    *,
    rounds: int = 30,
    threads: int = 2,
    progress: Callable[[str], None] = lambda line: None,
) -> Race:
    """Start all contenders, one after the other, and let them take turns.

    Args:
        contenders: with different names.
        example: the input of each run, [B, ...].
        folder: to write to.
        rounds: samples of each contender, at least 2.
        threads: of each runtime.
        progress: told one line for each step.
    """
    np.save(folder / "example.npy", example, allow_pickle=False)
    started, failed = dict[str, Started](), dict[str, str]()
    with contextlib.ExitStack() as stack:
        workers: dict[str, _Worker] = {}
        for contender in contenders:
            one = stack.enter_context(_worker(contender, folder / "example.npy", threads))
            try:
                answer = one.answer()
            except UserError as error:
                failed[contender.name] = str(error)
                progress(f"{contender.name}: {error}")
                continue
            workers[contender.name] = one
            features = np.array(answer["features"])
            size = size_of([contender.path, contender.path.with_suffix(".bin")])  # OpenVINO's weights
            started[contender.name] = Started(answer["seconds"], features, None, size)
            progress(f"{contender.name}: first features after {answer['seconds']:.1f} s")
        samples: dict[str, list[float]] = {name: [] for name in workers}
        for turn, name in turns(list(workers), _ROUNDS_BEFORE + rounds):
            answer = workers[name].take_turn()
            if turn >= _ROUNDS_BEFORE:
                samples[name].append(answer["milliseconds"])
            started[name] = started[name]._replace(peak_mb=answer["peak_mb"])
    return Race(Measurement({name: tuple(values) for name, values in samples.items()}), started, failed)


class _Worker:
    """A process that answers a line with a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self) -> dict[str, Any]:
        """The next one; the process is stopped after it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            assert self._process.stderr is not None
            said = self._process.stderr.read().strip().splitlines() or ["it ended without a word"]
            raise UserError(said[-1])
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise UserError(answer["failed"])
        self._signal("SIGSTOP")
        return answer

    def take_turn(self) -> dict[str, Any]:
        self._signal("SIGCONT")
        self.send({"runs": WARM})
        return self.answer()

    def send(self, content: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(content) + "\n")
        self._process.stdin.flush()

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows, where waiting threads may disturb the others
            self._process.send_signal(getattr(signal, name))


@contextlib.contextmanager
def _worker(contender: Contender, example: Path, threads: int) -> Iterator[_Worker]:
    command = [sys.executable, "-P", worker.__file__]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        one = _Worker(process)
        one.send(
            {
                "runtime": contender.runtime,
                "path": str(contender.path),
                "threads": threads,
                "precision": contender.precision,
                "example": str(example),
            }
        )
        yield one
    finally:
        process.kill()
        process.communicate()
