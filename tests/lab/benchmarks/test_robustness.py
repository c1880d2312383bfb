"""`mcliplib benchmark robustness`: the fastest of its cases, and that its judge calls what is bad "failed"."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcliplab.benchmarks import robustness, robustness_inputs, robustness_stops
from mcliplab.benchmarks.robustness import Bounds, Case, Command, Outcome, Place, Verdict
from mcliplib.cli import main

FAST = (
    ("lists", "UTF-16"),
    ("lists", "itself a pipe"),
    ("lists", "too many cells"),
    ("lists", "U+2028 in a caption"),
    ("shards", "a web page named .tar"),
    ("shards", "files of macOS"),
    ("checkpoints", "a zip bomb"),
    ("checkpoints", "a Git LFS pointer"),
    ("checkpoints", "a device"),
    ("settings", "a text for a number"),
    ("settings", "a plan that names ../"),
    ("web", "404"),
)
CASES = [*robustness_inputs.CASES, *robustness_stops.stops(1, 0)]


def planted(
    tmp_path: Path, code: str, expected: Verdict, told: str = "x.csv", bounds: Bounds = robustness.BOUNDS
) -> Outcome:
    """What is made of a program in place of the command line."""

    def make(place: Place) -> Command:
        return Command([code], program=(sys.executable, "-c"))

    (tmp_path / "kit").mkdir()
    case = Case("planted", "a program", make, expected, told)
    ((_, found),) = robustness.try_cases([case], tmp_path, tmp_path / "kit", bounds=bounds)
    return found


GOOD = "import sys; print('surveying: 3 samples', file=sys.stderr);"
NAMED = f"{GOOD} sys.exit('mcliplib evaluate: x.csv: is empty')"
BAD: dict[str, tuple[str, Verdict, str]] = {
    "a traceback": ("raise ValueError('x.csv')", "named", "traceback"),
    "a traceback, and status 0": (
        "import traceback; print('x.csv'); traceback.print_stack(); print('Traceback (most recent call last)')",
        "survived",
        "traceback",
    ),
    "a hang": ("import time; time.sleep(60)", "named", "hang"),
    "memory": ("x = b'1' * 400_000_000; import time; time.sleep(60)", "named", "memory"),
    "no count": ("print('fine')", "survived", "nothing printed that matches"),
    "used, and not named": ("print('x.csv')", "named", "should have been named"),
    "named, and not used": (NAMED, "survived", "should have been used"),
    "no name": ("import sys; sys.exit('mcliplib evaluate: is empty')", "named", "does not match"),
    "two lines": ("import sys; sys.exit('careful\\nmcliplib evaluate: x.csv: is empty')", "named", "2 lines"),
    "a signal": ("import os; os.kill(os.getpid(), 11)", "named", "ended by SIGSEGV"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_bad_has_failed(kind: str, tmp_path: Path) -> None:
    code, expected, fault = BAD[kind]
    found = planted(tmp_path, code, expected, bounds=Bounds(5.0, 200 << 20))
    assert found.verdict == "failed"
    assert fault in found.fault
    assert found.good == 0


def test_what_is_half_written_has_failed(tmp_path: Path) -> None:
    folder = tmp_path / "case-000"
    found = planted(tmp_path, f"open({str(folder / '.unfinished-1-2-3-a')!r}, 'w'); {NAMED}", "named")
    assert (found.verdict, found.fault) == ("failed", "left .unfinished-a half written")


def test_what_is_good_has_not(tmp_path: Path) -> None:
    programs: dict[Verdict, str] = {"named": NAMED, "survived": "print('1 skipped in x.csv')"}
    for expected, code in programs.items():
        (tmp_path / expected).mkdir()
        found = planted(tmp_path / expected, code, expected)
        assert (found.verdict, found.fault, found.good) == (expected, "", 1)
        assert "x.csv" in found.line


def test_counts() -> None:
    make = robustness_inputs.CASES[0].make
    cases = [Case("a", "One thing!", make, "named", ""), Case("a", "kill -9", make, "survived", "")]
    found = [Outcome("named", "line", "", 1.0), Outcome("failed", "", "other bytes", 9.0, n=4, good=3)]
    rows = {case.slug: robustness.row_of(case, one) for case, one in zip(cases, found, strict=True)}
    values = robustness.summary({"a": rows})
    assert values["kinds"]["a"] == values["kinds"]["all"] == {"tried": 5, "named": 1, "survived": 3, "failed": 1}
    assert values["cases"]["a"]["kill_9"]["fault"] == "other bytes"
    assert values["cases"]["a"]["one_thing"]["verdict"] == "named"


def test_the_table_is_sound() -> None:
    assert len({(case.kind, case.slug) for case in CASES}) == len(CASES)
    assert {(case.kind, case.name) for case in CASES} >= set(FAST)


def test_unknown_kinds_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "robustness", "--kinds", "weather"]) == 2
    assert "no kind 'weather'; there is pictures, lists" in capsys.readouterr().err


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robustness") / "kit"
    robustness_inputs.make_kit(folder, reinforced=False)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with robustness_inputs.bad_server() as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), FAST)
def test_fast_cases(kind: str, name: str, kit: Path, server: str, tmp_path: Path) -> None:
    chosen = [case for case in CASES if (case.kind, case.name) == (kind, name)]
    ((case, found),) = robustness.try_cases(chosen, tmp_path, kit, server)
    assert (found.verdict, found.fault) == (case.expected, "")
    assert found.line
    assert str(tmp_path) not in found.line
