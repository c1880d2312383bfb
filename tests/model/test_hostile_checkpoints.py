"""Checkpoints made to hurt, or damaged: one line that names the file, soon, and with little memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mcliplib
from mcliplab.benchmarks.robustness_inputs import zip_bomb
from mcliplib import load_checkpoint, load_model, save_checkpoint
from mcliplib.checkpoints import read_header
from mcliplib.errors import UserError

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def pico() -> mcliplib.MobileCLIP:
    torch.manual_seed(0)
    return mcliplib.create_model("mobileclip_pico", vocab=mcliplib.restrict_vocab(["a red flag"]))


@pytest.fixture(scope="module")
def good(pico: mcliplib.MobileCLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save_checkpoint(pico, path)
    return path


NAME = "image_encoder.proj.weight"
TENSORS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "stride 0": (lambda one: torch.zeros(1).expand(10**12), "claims 1,000,000,000,000 numbers"),
    "overlapping": (lambda one: torch.zeros(10).as_strided((1000, 10), (0, 1)), "claims 10,000 numbers"),
    "meta": (lambda one: torch.empty(one.shape, device="meta"), "sparse, quantized or empty"),
    "sparse": (lambda one: one.to_sparse(), "sparse, quantized or empty"),
    "quantized": (lambda one: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8), "sparse, quantized or empty"),
    "NaN": (lambda one: one * torch.nan, "holds NaN or infinite numbers"),
    "infinite": (lambda one: one / 0, "holds NaN or infinite numbers"),
    "NaN in half": (lambda one: (one * torch.nan).half(), "holds NaN or infinite numbers"),
    "whole numbers": (lambda one: one.to(torch.int8), r"torch\.int8 for torch\.float32"),
    "complex": (lambda one: one.to(torch.complex64), r"torch\.complex64 for torch\.float32"),
    "another shape": (lambda one: one[1:], "does not fit"),
    "no tensor": (lambda one: [1, 2], "holds no state dict"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_are_none(kind: str, pico: mcliplib.MobileCLIP, tmp_path: Path) -> None:
    make, message = TENSORS[kind]
    weights: dict[str, Any] = {name: one.contiguous() for name, one in pico.state_dict().items()}
    weights[NAME] = make(weights[NAME].detach())
    torch.save(weights, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=rf"bad\.pt: .*{message}"):
        load_checkpoint(mcliplib.create_model("mobileclip_pico", vocab=pico.config.vocab), tmp_path / "bad.pt")


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no object": (lambda one: [1], "must be names with values"),
    "a million layers": (lambda one: one["text"].update(layers=10**6), "layers must be from 0 to 128"),
    "deep stages": (lambda one: one["image"].update(depths=[64, 64, 64, 64]), "config is of a model of"),
    "wide": (lambda one: one.update(embed_dim=16384), "numbers, the file holds"),
    "negative": (lambda one: one["text"].update(context_length=-3), "context_length must be from 2"),
    "zero": (lambda one: one["text"].update(head_dim=0), "head_dim must be from 1"),
    "a text": (lambda one: one.update(embed_dim="7"), "embed_dim: must be int, got '7'"),
    "a truth": (lambda one: one.update(embed_dim=True), "embed_dim: must be int, got True"),
    "a fraction": (lambda one: one["text"].update(width=1.5), "width: must be int, got 1.5"),
    "not finite": (lambda one: one["image"].update(drop_path=float("nan")), "not finite"),
    "unknown": (lambda one: one["text"].update(color=1), "has unknown color"),
    "missing": (lambda one: one["image"].pop("widths"), "lacks widths"),
    "few stages": (lambda one: one["image"].update(widths=[32], depths=[1]), "four or five stages"),
    "uneven": (lambda one: one["image"].update(widths=[16, 32, 64, 100]), "no model can be built"),
    "vocabulary": (lambda one: one.update(vocab=[5, 4]), "ascending ids"),
    "a pixel's deviation": (lambda one: one["pixels"].update(std=[0, 1, 1]), "std must be from"),
    "two means": (lambda one: one["pixels"].update(mean=[0, 0]), "mean: must be"),
    "interpolation": (lambda one: one["pixels"].update(interpolation="magic"), "bilinear or bicubic"),
}


def rewritten(good: Path, path: Path, **header: str) -> Path:
    save_file(load_file(good), path, {**read_header(good), **header})
    return path


@pytest.mark.parametrize("kind", HEADERS)
def test_settings_that_are_none(kind: str, good: Path, tmp_path: Path) -> None:
    change, message = HEADERS[kind]
    config = json.loads(read_header(good)["config"])
    changed = change(config)
    text = json.dumps(changed if kind == "no object" else config)
    path = rewritten(good, tmp_path / "bad.safetensors", config=text)
    with pytest.raises(UserError, match=rf"bad\.safetensors: .*{message}"):
        load_model(path)


@pytest.mark.parametrize(
    "header",
    [{"config": "[" * 10**5}, {"config": "{"}, {"config": '{"name": 1, "name": 2}'}, {"folded": "7"}, {"folded": "{"}],
)
def test_headers_that_are_none(header: dict[str, str], good: Path, tmp_path: Path) -> None:
    path = rewritten(good, tmp_path / "bad.safetensors", **header)
    with pytest.raises(UserError, match=rf"bad\.safetensors: {next(iter(header))}"):
        load_model(path)


def _nested(path: Path) -> None:
    level: Any = {"x": 1}
    for _ in range(6):
        level = {f"n{number}": level for number in range(300)}
    torch.save(level, path)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.touch(), "it is empty"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "a pipe": (os.mkfifo, "device or a pipe"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "device or a pipe"),
    "gone": (lambda path: None, "no such file"),
    "a web page": (lambda path: path.write_text("\n<!DOCTYPE html><html>..."), "web page"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "huge": (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "at most"),
    "zeros": (lambda path: path.write_bytes(bytes(10**5)), "whole|refused"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_none(kind: str, suffix: str, tmp_path: Path) -> None:
    make, message = FILES[kind]
    make(tmp_path / f"bad{suffix}")
    with pytest.raises(UserError, match=rf"bad\{suffix}: .*({message})"):
        load_model(tmp_path / f"bad{suffix}")


_bomb = partial(zip_bomb, size=10**8)


@pytest.mark.parametrize(("make", "message"), [(_bomb, "compressed"), (_nested, "no state dict")])
def test_small_files_that_would_grow(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path / "bad.pt")
    with pytest.raises(UserError, match=rf"bad\.pt: .*{message}"):
        load_model(tmp_path / "bad.pt")


def test_equal_models_give_equal_bytes_in_any_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch, mcliplib; torch.manual_seed(0); m = mcliplib.create_model('mobileclip_pico');"
        "mcliplib.save_checkpoint(m, sys.argv[1], metadata={'ä\\n\"': 'ß\\x01\\u2028', **{c: c for c in 'zyxwvu'}})"
    )
    for seed in "01":
        command = [sys.executable, "-c", code, str(tmp_path / f"{seed}.safetensors")]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    one, other = ((tmp_path / f"{seed}.safetensors").read_bytes() for seed in "01")
    assert one == other
    header = read_header(tmp_path / "0.safetensors")
    assert header['ä\n"'] == "ß\x01\u2028"
    size = int.from_bytes(one[:8], "little")
    assert list(json.loads(one[8 : 8 + size])["__metadata__"]) == sorted(header)
    load_model(tmp_path / "0.safetensors")
