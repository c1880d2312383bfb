"""A tower in several runtimes, each in a process of its own, in interleaved turns.

Two runtimes in one process fight over the cores: each keeps threads that spin while they wait for work. So each has a
process (`mcliplib.latency.worker`), which is stopped while the others have their turns; a turn is a run that brings its
data back into the caches and is not counted, and a run that is. A process that dies is out of the race, and the others
go on.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from mcliplib.errors import UserError
from mcliplib.export.exporting import size_of
from mcliplib.latency import worker
from mcliplib.latency.timing import Measurement, turns

WARM = 2  # runs of a turn, of which the last is timed
_ROUNDS_BEFORE = 3  # turns that are not counted
_TAIL = 2**16  # bytes of what a dead process printed, in which its last line is looked for


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
        bytes: of the artefact on the disk; None in PyTorch, which builds the tower and loads no artefact.
    """

    seconds: float
    features: np.ndarray
    peak_mb: float | None
    bytes: int | None


@dataclass(frozen=True)
class Race:
    """The result of `race`.

    Attributes:
        measurement: milliseconds.
        started: of each contender that ran to the end, as in the measurement.
        failed: why a contender did not start, or did not run to the end.
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

    Raises:
        UserError: no contender ran to the end; says why each of them failed.
    """
    np.save(folder / "example.npy", example, allow_pickle=False)
    started, failed = dict[str, Started](), dict[str, str]()
    with contextlib.ExitStack() as stack:
        workers: dict[str, _Worker] = {}
        for contender in contenders:
            with _dropped_if_it_fails(contender.name, failed, progress):
                one = stack.enter_context(_worker(contender, folder / "example.npy", threads))
                started[contender.name] = _started(contender, one.answer())
                workers[contender.name] = one
                progress(f"{contender.name}: first features after {started[contender.name].seconds:.1f} s")
        samples: dict[str, list[float]] = {name: [] for name in workers}
        for turn, name in turns(list(workers), _ROUNDS_BEFORE + rounds):
            if name in failed:
                continue
            with _dropped_if_it_fails(name, failed, progress):
                answer = workers[name].take_turn()
                started[name] = started[name]._replace(peak_mb=answer["peak_mb"])
                if turn >= _ROUNDS_BEFORE:
                    samples[name].append(answer["milliseconds"])
    ran = {name: tuple(times) for name, times in samples.items() if name not in failed}
    if not ran:
        reasons = [f"{name}: {why}" for name, why in failed.items()]
        raise UserError("; ".join(["no contender ran to the end", *reasons]))
    return Race(Measurement(ran), {name: started[name] for name in ran}, failed)


@contextlib.contextmanager
def _dropped_if_it_fails(name: str, failed: dict[str, str], progress: Callable[[str], None]) -> Iterator[None]:
    """A contender whose process fails inside is among the failed ones, with the reason, and the race goes on."""
    try:
        yield
    except UserError as error:
        failed[name] = str(error)
        progress(f"{name}: {error}")


def _started(contender: Contender, answer: Mapping[str, Any]) -> Started:
    """A contender's first answer; its memory is known after its turns."""
    size = None
    if contender.runtime != "torch":
        size = size_of([contender.path, contender.path.with_suffix(".bin")])  # OpenVINO's weights
    return Started(answer["seconds"], np.array(answer["features"]), None, size)


class _Worker:
    """A process that answers a line with a line.

    What it prints beside that goes to a file: a pipe that nobody reads is full after 64 KiB, and blocks who writes.

    Args:
        process: with pipes for its input and its answers.
        printed: the file that has its stderr.
    """

    def __init__(self, process: subprocess.Popen[str], printed: IO[bytes]) -> None:
        self._process = process
        self._printed = printed

    def answer(self) -> dict[str, Any]:
        """The next one; the process is stopped after it.

        Raises:
            UserError: the runtime failed, or the process has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):  # nothing, or half an answer
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise UserError(answer["failed"])
        self._signal("SIGSTOP")
        return answer

    def take_turn(self) -> dict[str, Any]:
        """Wake the process, let it run, and stop it again; raises as `answer` does."""
        self._signal("SIGCONT")
        self.send({"runs": WARM})
        return self.answer()

    def send(self, content: Mapping[str, Any]) -> None:
        """Write a line to the process.

        Raises:
            UserError: it has ended. (A BrokenPipeError would end the command as if nobody read its output any more.)
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def _ended(self) -> UserError:
        """How the process ended, and the last line that it printed."""
        status = self._process.wait()
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        self._printed.seek(max(0, self._printed.seek(0, os.SEEK_END) - _TAIL))
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        return UserError(": ".join([f"its process ended with {how}", *lines[-1:]]))

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows, where waiting threads may disturb the others
            self._process.send_signal(getattr(signal, name))


@contextlib.contextmanager
def _worker(contender: Contender, example: Path, threads: int) -> Iterator[_Worker]:
    command = [sys.executable, "-P", worker.__file__]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed, text=True, env=environment
        )
        try:
            one = _Worker(process, printed)
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
