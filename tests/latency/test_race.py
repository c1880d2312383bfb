"""A race of small programs that answer as `mcliplib.latency.worker` does: what one of them does wrong stays its own."""

import numpy as np
import pytest

from mcliplib.cli.runtimes import _values
from mcliplib.errors import UserError
from mcliplib.latency import runtimes
from mcliplib.latency.runtimes import Contender, race
from mcliplib.latency.worker import choose_cores

RUNNER = """
import json, os, signal, sys
name = os.path.basename(json.loads(sys.stdin.readline())["path"])
if name == "absent":
    raise ModuleNotFoundError("No module named 'absent'")
print(json.dumps({"seconds": 0.1, "features": [[1.0, 0.0]]}), flush=True)
for turn, line in enumerate(sys.stdin):
    if name == "chatty":
        print("a warning " * 10_000, file=sys.stderr, flush=True)
    if name == "killed" and turn == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "cut" and turn == 4:
        print('{"milli', end="", flush=True)
        sys.exit(3)
    if name == "raising" and turn == 4:
        print("a warning", file=sys.stderr)
        raise MemoryError("no memory is left")
    print(json.dumps({"milliseconds": 1.0, "peak_mb": 2.0}), flush=True)
"""


@pytest.fixture(autouse=True)
def runner(tmp_path, monkeypatch):
    (tmp_path / "runner.py").write_text(RUNNER)
    monkeypatch.setattr(runtimes.worker, "__file__", str(tmp_path / "runner.py"))


def contender(name, folder, runtime="onnxruntime"):
    return Contender(name, runtime, folder / name)


def run(folder, *names, progress=lambda line: None):
    every = [contender(name, folder) for name in names]
    return race(every, np.zeros((1, 2)), folder, rounds=3, threads=1, progress=progress)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("killed", "its process ended with SIGKILL"),
        ("raising", "its process ended with status 1: MemoryError: no memory is left"),
        ("cut", "its process ended with status 3"),
        ("absent", "its process ended with status 1: ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_a_process_that_dies_is_out_and_the_others_go_on(tmp_path, name, why):
    told = []
    found = run(tmp_path, name, "first", "second", progress=told.append)
    assert found.failed == {name: why}
    assert f"{name}: {why}" in told
    assert found.measurement.samples == {"first": (1.0, 1.0, 1.0), "second": (1.0, 1.0, 1.0)}
    assert set(found.started) == {"first", "second"}
    values = _values(found, np.array([[1.0, 0.0]]), set())
    assert values["reference"] == "first"
    assert values["failed"] == {name: why}


def test_a_process_that_was_killed_while_it_waited(tmp_path):
    """To write to it is a broken pipe, which the command takes for a reader who wants no more of its output."""
    with runtimes._worker(contender("first", tmp_path), tmp_path / "example.npy", 1) as one:
        one.answer()
        one._process.kill()
        one._process.wait()
        with pytest.raises(UserError, match=r"^its process ended with SIGKILL$"):
            one.take_turn()


def test_nobody_is_left(tmp_path):
    with pytest.raises(UserError, match=r"^no contender ran to the end; absent: .*'absent'; killed: .* SIGKILL$"):
        run(tmp_path, "killed", "absent")


@pytest.mark.timeout(60)
def test_one_that_prints_much_is_not_blocked(tmp_path):
    found = run(tmp_path, "chatty", "first")
    assert set(found.measurement.samples) == {"chatty", "first"}


def test_only_what_is_a_file_has_a_size(tmp_path):
    """PyTorch's process loads no artefact: its file holds only arguments."""
    for name in ("ours", "exported", "exported.bin"):
        (tmp_path / name).write_bytes(b"12345")
    every = [contender("ours", tmp_path, "torch"), contender("exported", tmp_path)]
    found = race(every, np.zeros((1, 2)), tmp_path, rounds=2, threads=1)
    values = _values(found, np.array([[1.0, 0.0]]), set())
    assert {name: one["bytes"] for name, one in values["contenders"].items()} == {"ours": None, "exported": 10}


@pytest.mark.parametrize(
    ("count", "allowed", "expected"),
    [
        (1, {0, 1, 2, 3}, {0}),
        (2, {0, 1, 2, 3}, {0, 2}),
        (3, {0, 1, 2, 3}, {0, 1, 2}),
        (2, {1, 3}, {1, 3}),
        (2, {2, 3}, {2, 3}),
        (8, {0, 1}, {0, 1}),
    ],
)
def test_cores_that_share_no_physical_core_come_first(tmp_path, count, allowed, expected):
    for core, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        (tmp_path / f"cpu{core}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{core}/topology/thread_siblings_list").write_text(f"{siblings}\n")
    assert choose_cores(count, allowed, tmp_path) == expected
    assert choose_cores(2, {5, 3, 4}, tmp_path / "nothing") == {3, 4}
