"""Files that appear whole or not at all, locks, and names that become paths, on real disks and with real processes."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcliplib import files
from mcliplib.errors import UserError, WriteError

HOLD = "import sys, time, pathlib; from mcliplib.files import locked, replacing\n"


def started(code: str, *arguments: Path) -> subprocess.Popen[str]:
    """A process that has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


LOCKING = "with locked(pathlib.Path(sys.argv[1])): print('ready', flush=True); time.sleep(600)"


def test_a_second_run_is_told_of_the_first_and_a_killed_one_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = started(LOCKING, folder)
    try:
        for _ in range(2):
            with pytest.raises(UserError, match=rf"run: another run writes here \(process {process.pid} on "):
                files.locked(folder).__enter__()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with files.locked(folder), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        files.locked(folder).__enter__()
    assert not folder.exists() or not list(folder.iterdir())
    with files.locked(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def _count(folder: str) -> int:
    """How often this process held the lock; it must have been alone each time."""
    held, inside = 0, Path(folder) / "inside"
    for _ in range(300):
        try:
            with files.locked(Path(folder)):
                inside.touch(exist_ok=False)
                inside.unlink()
                held += 1
        except UserError:
            pass
    return held


def test_never_two_at_once_while_locks_come_and_go(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert sum(pool.map(_count, [str(tmp_path)] * 3)) > 0


def test_what_a_killed_writer_left_goes_and_a_living_one_keeps_its_own(tmp_path: Path) -> None:
    writing = (
        "with replacing(pathlib.Path(sys.argv[1])) as one:\n one.touch(); print('ready', flush=True); time.sleep(600)"
    )
    dead, alive = started(writing, tmp_path / "a"), started(writing, tmp_path / "b")
    dead.kill()
    dead.wait()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    with files.locked(tmp_path):
        assert [path.name for path in tmp_path.glob(".unfinished-*")] == [name for name in left if name.endswith("-b")]
    alive.kill()
    alive.wait()
    files.write_text(tmp_path / "b", "whole")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("b", "whole")]


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 100 + ".json")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: files.write_text(path, str(number) * 10_000), range(64)))
    assert len(set(path.read_text())) <= 2
    assert len(path.read_text()) in (10_000, 20_000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    files.write_text(tmp_path / "link", "content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "content"


def test_why_a_file_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, why in [
        (tmp_path, "Is a directory"),
        (tmp_path / "file" / "below", "Not a directory"),
        (tmp_path / "file" / "below" / "deeper", "Not a directory"),
        (tmp_path / ("n" * 300), "File name too long"),
        (tmp_path / "pipe", "device or a pipe"),
        (Path("/dev/full"), "device or a pipe"),
    ]:
        with pytest.raises(WriteError, match=f"cannot be written .*{why}"):
            files.write_text(path, "content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]
    with pytest.raises(WriteError, match="file: cannot be written"):
        files.locked(tmp_path / "file").__enter__()


def test_errors_that_are_not_of_writing_stay_themselves(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "a"):
        (tmp_path / "input").read_text()
    assert not isinstance(caught.value, UserError)
    with pytest.raises(UserError, match=r"^broken$"), files.replacing(tmp_path / "a"):
        raise UserError("broken")
    assert not list(tmp_path.iterdir())


def _limited(work: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Code in a process that cannot write a file of more than 64 KiB, as on a full disk."""
    return subprocess.run(
        [sys.executable, "-c", HOLD + work],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
        check=False,
    )


@pytest.mark.parametrize(
    "work",
    [
        "from mcliplib.files import write_text; write_text(pathlib.Path('out'), 'x' * 10**6)",
        "from mcliplib import *; save_checkpoint(create_model('mobileclip_pico'), 'out.safetensors')",
        "from mcliplib import *; save_checkpoint(create_model('mobileclip_pico'), 'out.pt', 'mobileclip')",
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(work: str, tmp_path: Path) -> None:
    result = _limited(work, tmp_path)
    assert result.returncode == 1
    assert "cannot be written (File too large); it is larger than" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", ".hidden", "~root", "a\0", "a\n", "C:x", "x" * 201, "a "]
)
def test_names_that_are_no_file_names(name: str) -> None:
    with pytest.raises(UserError, match=r"variant: .* is no name of a file"):
        files.plain_name(name, "variant")


@pytest.mark.parametrize("name", ["a", "lambda_0.4", "größe-2", "shard-000000.tar.gz", "a b"])
def test_names_that_are(name: str) -> None:
    assert files.plain_name(name, "variant") == name


@pytest.mark.parametrize("text", ["[" * 60_000, "- " * 60_000, "{a: " * 50_000, "? " * 50_000])
def test_deep_yaml_is_refused_at_its_hundredth_level(tmp_path: Path, text: str) -> None:
    """Read to its end, it would take hours."""
    (tmp_path / "deep.yaml").write_text(text)
    with pytest.raises(UserError, match=r"deep\.yaml: is not YAML"):
        files.read_yaml(tmp_path / "deep.yaml")
