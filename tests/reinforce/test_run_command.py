"""`mcliplib reinforce`: what it asks for reaches the run, and bad input is one line."""

from pathlib import Path
from typing import Any

import pytest

from mcliplib.cli import main
from tests.reinforce.reinforce_run import TEACHERS, TinyCaptioner, manifest, read_output, write_input


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    named: dict[str, Any] = {teacher.name: teacher for teacher in TEACHERS}
    monkeypatch.setattr("mcliplib.reinforce.teachers.make_teacher", lambda spec, device: named[spec])
    write_input(tmp_path / "in", shards=2)
    return tmp_path


def test_reinforce(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reinforce", "--input", f"{folder}/in/in-*.tar", "--output", f"{folder}/set", "--teachers", "one, two"]
    command += ["--augmentations", "2", "--seed", "5", "--dtype", "float32", "--augmentation-size", "64"]
    command += ["--crop-scale", "0.5", "0.9", "--ops", "1", "--magnitude", "4"]
    assert main(command) == 0
    assert "20 samples; skipped: none" in capsys.readouterr().out
    told = manifest(folder / "set")["identity"]
    assert told["captioner"] is None
    assert {"augmentations": 2, "captions": 0, "seed": 5, "dtype": "float32"}.items() <= told["settings"].items()
    drawn_from = {"size": 64, "crop_scale": [0.5, 0.9], "num_ops": 1, "magnitude": 4}
    assert drawn_from.items() <= told["settings"]["augment"].items()
    assert len(read_output(folder / "set")) == 20
    assert main(command) == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0


def test_captions(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    captioners = pytest.importorskip("mcliplib.reinforce.captioners")
    asked = []
    monkeypatch.setattr(captioners, "make_captioner", lambda spec, device: asked.append(spec) or TinyCaptioner())
    command = ["reinforce", "--input", f"{folder}/in", "--teachers", "one"]
    assert main([*command, "--output", f"{folder}/a", "--captions", "1"]) == 0
    assert main([*command, "--output", f"{folder}/b", "--captioner", "coca:x"]) == 0
    assert asked == ["decoder", "coca:x"]
    assert manifest(folder / "b")["identity"]["settings"]["captions"] == 5
    assert main([*command, "--output", f"{folder}/c", "--captions", "1", "--captioner", "none"]) == 2
    assert "needs a captioner" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere.tar"], "no such file"),
        (["--augmentations", "0"], "augmentations must be at least 1"),
        (["--magnitude", "31"], "0 <= magnitude < bins"),
        (["--crop-scale", "0.5", "1.5"], "crop_scale must be a range"),
        (["--workers", "-1"], "workers must be at least 1"),
        (["--max-skipped", "3"], "a share from 0 to 1"),
        (["--teachers", ""], "at least one teacher"),
        (["--output", "/proc/nothing"], "what is done is kept"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    usual = ["--input", f"{folder}/in", "--output", f"{folder}/set", "--teachers", "one"]
    assert main(["reinforce", *usual, *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("mcliplib reinforce: ")
    assert message in error
