"""Faults and bad inputs, one after the other, given to the real command line; a program judges what came of each.

A case says beforehand which of two good ends it must have:

- survived: the command ends with status 0, and counts by name what could not be used, or reads the input rightly.
- named: the command ends with another status and one line that names the file or field; nothing is half written.

All else is failed: a traceback, a hang, too much memory, an unnamed fault, and also the other of the two ends.
`robustness_inputs.py` has the table of bad inputs, `robustness_stops.py` the interruptions.
"""

import contextlib
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from mcliplib.files import UNFINISHED
from mcliplib.results import RESULTS

Verdict = Literal["survived", "named", "failed"]
PROGRAM = (sys.executable, "-m", "mcliplib")
_PROGRESS = re.compile(  # what commands print on stderr while all is well
    r"loading the teachers|surveying|reinforcing|evaluating |\s*\d+%\||warmup_steps |batch_size |continuing at step|"
    r"[\d,]+ samples read"
)
_LONGEST = 300  # letters of a printed line that are kept


class Bounds(NamedTuple):
    """Limits beyond which a command counts as failed."""

    seconds: float = 120.0
    bytes: int = 4 << 30  # resident, of the command and the processes that it starts


BOUNDS = Bounds()


@dataclass(frozen=True)
class Command:
    """A command line to try.

    Attributes:
        arguments: behind `mcliplib`.
        environment: variables that are set beside those of this process.
        largest_file: bytes that a file may have, as on a disk that is nearly full.
        program: what is started.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    largest_file: int | None = None
    program: Sequence[str] = PROGRAM


@dataclass(frozen=True)
class Place:
    """Where a case happens.

    Attributes:
        folder: empty at the beginning, of this case alone.
        kit: good pictures, shards and a model, to spoil copies of.
        server: address of the web server that answers badly.
        bounds: for each command.
    """

    folder: Path
    kit: Path
    server: str = ""
    bounds: Bounds = BOUNDS


class Ended(NamedTuple):
    """How a command ended."""

    status: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float
    bounded: str = ""  # which bound it broke


class Outcome(NamedTuple):
    """The result of a case.

    Attributes:
        verdict: of the case.
        line: what the command said about it.
        fault: why it failed; empty where it did not.
        seconds: in all.
        n: how often it was tried.
        good: how often it ended as it must.
    """

    verdict: Verdict
    line: str
    fault: str
    seconds: float
    n: int = 1
    good: int = 1


def no_fault(place: Place) -> str:
    """A check of what is on disk afterwards that finds nothing."""
    return ""


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        kind: of input.
        name: of the case, for people.
        make: makes the input, and says what is typed.
        expected: the verdict that it must have.
        told: a regular expression that the line must match where it is "named", anything printed where it "survived".
        check: what is wrong on disk afterwards; empty if nothing is.
        attempt: takes the place of `attempt`, where one command is not all.
    """

    kind: str
    name: str
    make: Callable[[Place], Command]
    expected: Verdict
    told: str
    check: Callable[[Place], str] = no_fault
    attempt: "Callable[[Place, Case], Outcome] | None" = None

    @property
    def slug(self) -> str:
        """The name as the record has it."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")


def attempt(place: Place, case: Case) -> Outcome:
    """Make the input, run the command, judge."""
    return judge(case, place, execute(case.make(place), place.folder, place.bounds))


def try_cases(
    cases: Iterable[Case], work: Path, kit: Path, server: str = "", bounds: Bounds = BOUNDS
) -> Iterator[tuple[Case, Outcome]]:
    """Each case with what became of it.

    Args:
        cases: in this order.
        work: folder for a folder of each case.
        kit: see Place.
        server: see Place.
        bounds: for each command.
    """
    for number, case in enumerate(cases):
        place = Place(work / f"case-{number:03d}", kit, server, bounds)
        place.folder.mkdir()
        try:
            yield case, (case.attempt or attempt)(place, case)
        finally:
            subprocess.run(["rm", "-rf", str(place.folder)], check=False)  # shutil stumbles over odd trees


@contextlib.contextmanager
def started(command: Command, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The command as a process with its own group, which is killed at the end; its output goes to `.out` and `.err`."""
    environment = {**os.environ, "NO_COLOR": "1", "no_proxy": "127.0.0.1", **command.environment}

    def limit() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so would their children
        if command.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (command.largest_file,) * 2)

    with (folder / ".out").open("wb") as out, (folder / ".err").open("wb") as err:
        process = subprocess.Popen(
            [*command.program, *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
            preexec_fn=limit,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def execute(command: Command, folder: Path, bounds: Bounds) -> Ended:
    """Run the command to its end or to a bound."""
    begin = time.monotonic()
    with started(command, folder) as process:
        bounded = watched(process, begin, bounds)
    return ended(process, folder, time.monotonic() - begin, bounded)


def watched(process: "subprocess.Popen[bytes]", begin: float, bounds: Bounds) -> str:
    """Wait for the process's end, or name the bound that it broke."""
    while process.poll() is None:
        if time.monotonic() - begin > bounds.seconds:
            return f"hang: no end after {bounds.seconds:.0f} s"
        if resident(process.pid) > bounds.bytes:
            return f"memory: more than {bounds.bytes / 2**30:.1f} GiB"
        time.sleep(0.03)
    return ""


def ended(process: "subprocess.Popen[bytes]", folder: Path, seconds: float, bounded: str = "") -> Ended:
    """Return the status, output and seconds of a process that `started` began and that has ended."""
    out, err = ((folder / name).read_text(encoding="utf-8", errors="replace") for name in (".out", ".err"))
    return Ended(process.returncode, out, err, seconds, bounded)


def resident(pid: int) -> int:
    """Return the bytes that a process and its children hold in memory; 0 once it has ended."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def judge(case: Case, place: Place, ended: Ended) -> Outcome:
    """The verdict, from status, output and what is on disk."""
    line, fault = _judged(case, ended)
    fault = fault or _half_written(place.folder) or case.check(place)
    return outcome(case, place, line, fault, ended.seconds)


def outcome(case: Case, place: Place, line: str, fault: str, seconds: float, n: int = 1, bad: int = 0) -> Outcome:
    """The outcome of a case, with what is of this run alone taken out of its texts."""
    verdict = "failed" if fault else case.expected
    return Outcome(verdict, plain(line, place), plain(fault, place), seconds, n, n - max(bad, 1 if fault else 0))


def _judged(case: Case, ended: Ended) -> tuple[str, str]:
    """The line, and what is wrong with the end."""
    everything = (ended.err + "\n" + ended.out).splitlines()
    last = next((one for one in reversed(ended.err.splitlines()) if one.strip()), "")
    if ended.bounded:
        return last, ended.bounded
    if "Traceback (most recent call last)" in ended.err + ended.out:
        return last, "traceback"
    if ended.status < 0:
        return last, f"ended by {signal.Signals(-ended.status).name}"
    if ended.status == 0:
        found = next((one for one in everything if re.search(case.told, one)), "")
        if case.expected != "survived":
            return found or last, "status 0, where the fault should have been named"
        return found or " / ".join(
            one for one in everything if one.strip()
        ), "" if found else f"status 0, and nothing printed that matches {case.told!r}"
    lines = [one for one in ended.err.splitlines() if one.strip() and not _PROGRESS.match(one)]
    if case.expected != "named":
        return last, f"status {ended.status}, where the rest should have been used"
    if len(lines) != 1:
        return last, f"{len(lines)} lines instead of one"
    return lines[0], "" if re.search(case.told, lines[0]) else f"the line does not match {case.told!r}"


def _half_written(folder: Path) -> str:
    left = list(folder.rglob(f"{UNFINISHED}*"))
    return f"left {left[0].name} half written" if left else ""


def plain(text: str, place: Place) -> str:
    """The text without what is of this run alone: temporary paths, ports, processes, the machine's name."""
    for found, short in ((place.folder, "CASE"), (place.kit, "KIT"), (place.server or "\0", "http://SERVER")):
        text = text.replace(str(found), short)
    text = text.replace(f"{RESULTS.parent.parent}/", "").replace(platform.node() or "\0", "HOST")
    text = re.sub(rf"{re.escape(UNFINISHED)}[0-9a-f]+-\d+-\d+-", UNFINISHED, re.sub(r"process \d+", "process N", text))
    text = "".join(one if one.isprintable() else " " for one in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def row_of(case: Case, outcome: Outcome) -> dict[str, Any]:
    """A case as the record has it."""
    return {
        "input": case.name,
        "expected": case.expected,
        "verdict": outcome.verdict,
        "line": outcome.line,
        **({"fault": outcome.fault} if outcome.fault else {}),
        "n": outcome.n,
        "failed": outcome.n - outcome.good,
        "seconds": round(outcome.seconds, 1),
    }


def summary(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The values of the record: counts of each kind and of all, and every case.

    Args:
        rows: by kind and slug.
    """
    kinds: dict[str, dict[str, int]] = {}
    for kind, cases in rows.items():
        for name in (kind, "all"):
            counts = kinds.setdefault(name, dict.fromkeys(("tried", "named", "survived", "failed"), 0))
            for row in cases.values():
                counts["tried"] += row["n"]
                counts[row["expected"]] += row["n"] - row["failed"]
                counts["failed"] += row["failed"]
    return {"kinds": kinds, "cases": rows}
