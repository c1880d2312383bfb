"""The folder: what another program needs is in it, and it is there only when it is whole."""

import errno
import html
import importlib.metadata
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pytest
import regex

import mcliplib
from mcliplib.cli import main
from mcliplib.errors import UserError, WriteError
from mcliplib.export import export, exporting, verify
from mcliplib.export.folder import tokenizer_json

TEXTS = [
    "a red flag",
    "",
    "Don't  PANIC &amp; run!",
    "é ☂ 漢字",
    "supercalifragilistic 2024",
    "<start_of_text> x",
    "zebra" * 60,
]


def test_what_is_in_it(exported, student):
    size = student.config.image.image_size
    folder, card = exported(precision="float32")
    assert sorted(path.name for path in folder.iterdir()) == [
        "LICENSE.md", "README.md", "card.json", "image.onnx", "preprocessing.json", "text.onnx", "tokenizer.json"
    ]  # fmt: skip
    assert json.loads((folder / "card.json").read_text()) == card
    assert card["towers"]["image"]["bytes"] == (folder / "image.onnx").stat().st_size
    assert set(card["versions"]) == {"mcliplib", "torch", "onnx", "onnxscript", "onnxruntime"}
    text = (folder / "README.md").read_text()
    assert f"`pixels` float32 [batch, 3, {size}, {size}]" in text
    assert "smallest cosine to PyTorch's features 1.0000" in text
    assert "opset 20" in text


def test_one_tower_brings_only_its_own(exported):
    folder, card = exported(preprocessing=True, tower="image")
    assert not (folder / "tokenizer.json").exists()
    assert list(card["towers"]) == ["image"]


def tokenize(about, text):
    """The tokenizer again, from the JSON alone, as its documentation says."""
    text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
    ranks = {tuple(pair): rank for rank, pair in enumerate(about["merges"])}
    halves = {"".join(pair): pair for pair in about["merges"]}

    def ids(piece):
        if piece in about["vocab"]:
            return [about["vocab"][piece]]
        return [one for half in halves[piece] for one in ids(half)]

    found = []
    for word in regex.findall(about["pattern"], text, regex.IGNORECASE):
        if word in about["vocab"] and word.startswith("<"):
            found.append(about["vocab"][word])
            continue
        pieces = [about["bytes"][str(byte)] for byte in word.encode()]
        pieces[-1] += "</w>"
        while len(pieces) > 1:
            best = min(itertools.pairwise(pieces), key=lambda pair: ranks.get(pair, 1e9))
            if best not in ranks:
                break
            at = next(i for i in range(len(pieces)) if tuple(pieces[i : i + 2]) == best)
            pieces[at : at + 2] = ["".join(best)]
        found += [one for piece in pieces for one in ids(piece)]
    length = about["context_length"]
    row = [about["start"], *found[: length - 2], about["end"]]
    return row + [about["pad"]] * (length - len(row))


@pytest.mark.parametrize("vocab", [None, "restricted"])
def test_the_tokenizer_can_be_written_in_another_language(vocab):
    words = None if vocab is None else mcliplib.restrict_vocab(["a red zebra", "do not panic"])
    tokenizer = mcliplib.Tokenizer(16, words)
    about = json.loads(json.dumps(tokenizer_json(tokenizer)))
    assert [tokenize(about, text) for text in TEXTS] == tokenizer(TEXTS).tolist()


def test_a_folder_that_is_not_empty_is_refused(student, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export(student, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.fixture
def quick(monkeypatch):
    """A conversion that takes no time, and a runtime that says what it is told."""

    writer: Any = types.ModuleType("writer")
    writer.SUFFIX, writer.NEEDS, writer.PRECISIONS = ".bin", (), ("float32",)

    def convert(plain, path, precision, **options):
        path.write_bytes(b"whole")
        return {}

    writer.convert = convert
    monkeypatch.setattr(exporting, "find_format", lambda name: writer)
    return writer


@pytest.mark.parametrize("wrong", [0.0, float("nan")])
def test_a_wrong_artefact_leaves_nothing(student, tmp_path, quick, wrong):
    quick.load = lambda path: lambda inputs: np.full((len(inputs), student.config.embed_dim), wrong)
    with pytest.raises(UserError, match=r"not PyTorch's .*smallest cosine.*needs 0.9999"):
        export(student, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(student, tmp_path, quick):
    def interrupted(path):
        raise KeyboardInterrupt

    quick.load = interrupted
    with pytest.raises(KeyboardInterrupt):
        export(student, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_is_not_here_is_said(student, tmp_path, quick):
    def elsewhere(path):
        raise verify.CannotRun("runs on another system only")

    quick.load = elsewhere
    card = export(student, tmp_path / "out", tower="text")
    assert card["towers"]["text"]["verified"]["cannot_run"] == "runs on another system only"
    assert "converted only: runs on another system only" in (tmp_path / "out" / "README.md").read_text()


def test_a_place_that_cannot_be_written_to_is_one_line(student, tmp_path, monkeypatch):
    def refused(self, *args, **kwargs):
        raise OSError(errno.EROFS, "", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(WriteError, match=r"cannot be written .*[Rr]ead-only"):
        export(student, tmp_path / "out")


def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch, capsys):
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    assert main(["export", "--model", "student", "--output", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "mcliplib export: format onnx needs onnxscript: pip install 'mcliplib[export]'"
    assert not (tmp_path / "out").exists()


def test_a_package_of_another_name_has_its_version(monkeypatch):
    monkeypatch.setattr(
        exporting.importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnx"], "torch": ["torch"]}
    )
    assert exporting._version("onnxruntime") == importlib.metadata.version("onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onyx"], "unknown format 'onyx'"),
        (["--precision", "int3"], "precision is one of"),
        (["--model", "open_clip:ViT-B-32/x"], "only MobileCLIP models"),
        (["--model", "mobileclip_s0"], "without trained weights"),
        (["--calibrate", "openclipart"], "would do nothing"),
        (["--per-tensor"], "would do nothing"),
        (["--precision", "int8", "--tower", "text", "--calibrate", "openclipart"], "would do nothing"),
        (["--force"], "--force is for int8"),
        (["--preprocessing", "--tower", "text"], "only the image tower"),
        (["--precision", "int8", "--calibrate", "eval"], "no shipped set; there is art4apps, "),
        (["--precision", "int8", "--calibrate", "no/such"], "no folder of pictures"),
    ],
)
def test_bad_input_is_one_line(tmp_path, options, message, capsys):
    argv = ["export", "--model", "student", "--output", str(tmp_path / "out"), *options]
    assert main(argv) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path, capsys):
    assert main(["export", "--model", "student", "--tower", "text", "--output", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert f"written to {tmp_path / 'out'}" in out
    assert err.splitlines() == ["exporting the text tower", "verifying the text tower"]
    assert (tmp_path / "out" / "text.onnx").is_file()


def test_without_sets_it_is_verified_on_noise(tmp_path, monkeypatch):
    monkeypatch.setenv("MCLIPLIB_DATA", str(tmp_path / "none"))
    with pytest.warns(UserWarning, match="verified on generated noise only"):
        found = verify.find_inputs()
    assert found.source == "generated noise"
    assert len({image.tobytes() for image in found.images}) == len(found.images)


@pytest.mark.slow
def test_killed_it_leaves_no_folder_and_the_next_one_clears_up(tmp_path, student):
    argv = ["-m", "mcliplib", "export", "--model", "student", "--output", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, *argv])
    while not list(tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [re.sub(r"[0-9a-f]+-\d+-\d+", "N", path.name) for path in tmp_path.iterdir()] == [".unfinished-N-out"]
    export(student, tmp_path / "out", tower="text")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
