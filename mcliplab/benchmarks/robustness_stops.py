"""The interruptions of `mcliplib benchmark robustness`: kill -9, SIGTERM, Ctrl-C, and two runs in one folder."""

import hashlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcliplab.benchmarks import robustness
from mcliplab.benchmarks.robustness import Case, Command, Ended, Outcome, Place
from mcliplab.benchmarks.robustness_inputs import MODEL, SET, reinforcing, training
from mcliplib.files import UNFINISHED

_WAIT = 60.0  # seconds until a command has begun to write


def slow_reinforcing(place: Place) -> Command:
    """Some seconds of work in six shards."""
    output = place.folder / "out"
    return reinforcing(place.kit / "pictures", output, "--augmentations", "30", "--shard-size", "2")


def slow_training(place: Place) -> Command:
    """Some seconds of work, saved at every second step."""
    more = ["--reinforced", "--samples", "160", "--save-every", "2", "--dtype", "float32"]
    return training(place.kit / SET, place.folder / "out", *more)


def results_of(folder: Path) -> str:
    """A hash of all shards, manifests and models in a folder, with their names; empty where there are none."""
    found = sorted(path for one in ("*.tar", "manifest.json", MODEL) for path in folder.glob(one))
    digest = hashlib.sha256()
    for path in found:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest() if found else ""


def begun(folder: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until the command writes to its folder; False where it ends before, or never does."""
    end = time.monotonic() + _WAIT
    while time.monotonic() < end and process.poll() is None:
        if (folder / "out/.lock").exists():
            return True
        time.sleep(0.01)
    return False


@dataclass(frozen=True)
class Kills:
    """Kill -9 at random moments of the work; each time the run is resumed, and must give what an undisturbed one gives.

    Attributes:
        moments: how many.
        seed: of the moments.
        resume: the arguments that continue the run.
    """

    moments: int
    seed: int
    resume: tuple[str, ...]

    def __call__(self, place: Place, case: Case) -> Outcome:
        """See `Case.attempt`."""
        command, output = case.make(place), place.folder / "out"
        begin, seconds = time.monotonic(), self._undisturbed(command, place)
        whole = results_of(output)
        if not whole:
            return robustness.outcome(case, place, "", "the undisturbed run has no result", seconds, self.moments)
        generator, faults, shares = random.Random(self.seed), [], []
        for _ in range(self.moments):
            shutil.rmtree(output)
            share = generator.random()
            shares.append(f"{share:.0%}")
            if fault := self._killed(command, place, share * seconds, whole):
                faults.append(f"after {share:.0%} of the work: {fault}")
        line = f"killed after {', '.join(shares)} of the work, resumed each time to the same bytes"
        took = time.monotonic() - begin
        fault = "; ".join(faults)
        return robustness.outcome(case, place, "" if fault else line, fault, took, self.moments, len(faults))

    def _undisturbed(self, command: Command, place: Place) -> float:
        """Seconds from the first writing to the end."""
        with robustness.started(command, place.folder) as process:
            begun(place.folder, process)
            begin = time.monotonic()
            robustness.watched(process, begin, place.bounds)
            return time.monotonic() - begin

    def _killed(self, command: Command, place: Place, seconds: float, whole: str) -> str:
        """Kill a run after these seconds and resume it; returns the fault that this left, if any."""
        with robustness.started(command, place.folder) as process:
            if not begun(place.folder, process):
                return "it did not begin"
            time.sleep(seconds)  # the end of the block kills it
        resumed = Command([*command.arguments, *self.resume])
        ended = robustness.execute(resumed, place.folder, place.bounds)
        if ended.status != 0:
            return f"resuming ended with status {ended.status} {ended.bounded}: {ended.err.strip()[-200:]}"
        if left := list(place.folder.rglob(f"{UNFINISHED}*")):
            return f"left {left[0].name} half written"
        return "" if results_of(place.folder / "out") == whole else "resumed to other bytes"


@dataclass(frozen=True)
class Signal:
    """A signal that asks to stop, some time after the work began, or after the process did.

    Attributes:
        number: of the signal.
        status: that the command must end with.
        seconds: after the beginning of the work.
        at_start: seconds after the process's start instead.
    """

    number: signal.Signals
    status: int
    seconds: float = 1.0
    at_start: float | None = None

    def __call__(self, place: Place, case: Case) -> Outcome:
        """See `Case.attempt`."""
        start = time.monotonic()
        with robustness.started(case.make(place), place.folder) as process:
            if self.at_start is None:
                begun(place.folder, process)
            time.sleep(self.seconds if self.at_start is None else self.at_start)
            process.send_signal(self.number)
            bounded = robustness.watched(process, start, place.bounds)
        ended = robustness.ended(process, place.folder, time.monotonic() - start, bounded)
        judged = robustness.judge(case, place, ended)
        if judged.verdict != "failed" and ended.status != self.status:
            return robustness.outcome(case, place, judged.line, f"status {ended.status}", judged.seconds)
        return judged


def second_run(place: Place, case: Case) -> Outcome:
    """Start a run while another one works in the same folder; the first must end well."""
    command, start = case.make(place), time.monotonic()
    with robustness.started(command, place.folder) as first:
        began = begun(place.folder, first)
        first.send_signal(signal.SIGSTOP)  # or it might end while the second one still imports torch
        (place.folder / "second").mkdir()
        resumed = Command([*command.arguments, *("--resume", "auto")[: 2 if command.arguments[0] == "train" else 1]])
        second = robustness.execute(resumed, place.folder / "second", place.bounds)
        first.send_signal(signal.SIGCONT)
        bounded = robustness.watched(first, time.monotonic(), place.bounds)
    if not began or bounded or first.returncode != 0:
        return robustness.outcome(case, place, "", f"the first run ended with {first.returncode}", second.seconds)
    judged = robustness.judge(case, place, Ended(second.status, second.out, second.err, time.monotonic() - start))
    return judged


def stops(moments: int, seed: int) -> list[Case]:
    """The cases.

    Args:
        moments: of kill -9, for each command.
        seed: of the moments.
    """
    works: tuple[tuple[str, Callable[[Place], Command], tuple[str, ...]], ...] = (
        ("reinforcing", slow_reinforcing, ("--resume",)),
        ("training", slow_training, ("--resume", "auto")),
    )
    cases = []
    for number, (work, make, resume) in enumerate(works):
        word = "reinforce" if work == "reinforcing" else "train"
        kills = Kills(moments, seed + number, resume)
        cases += [
            Case("stops", f"kill -9 while {work}", make, "survived", "", attempt=kills),
            _signal(f"SIGTERM while {work}", make, f"mcliplib {word}: terminated", Signal(signal.SIGTERM, 143)),
            _signal(f"Ctrl-C while {work}", make, f"mcliplib {word}: interrupted", Signal(signal.SIGINT, 130)),
            Case(
                "output",
                f"a second run while {work}",
                make,
                "named",
                "out: another run writes here",
                attempt=second_run,
            ),
        ]
    at_start = Signal(signal.SIGINT, 130, at_start=1.0)
    return [*cases, _signal("Ctrl-C while the command starts", slow_training, "mcliplib train: interrupted", at_start)]


def _signal(name: str, make: Callable[[Place], Command], told: str, attempt: Signal) -> Case:
    return Case("stops", name, make, "named", told, attempt=attempt)
