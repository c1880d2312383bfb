"""Weights that come, or are to be saved, in somebody's wrapper: read where that is safe, named where it is not."""

import json
import re

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import mcliplib
from mcliplib import UserError
from mcliplib.checkpoints.files import read_checkpoint
from mcliplib.checkpoints.formats import to_format
from tests.conftest import randomize_

SMALL = {"vocab": mcliplib.restrict_vocab(["a red flag"]), "context_length": 12}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return randomize_(mcliplib.create_model("mobileclip_nano", **SMALL))


@pytest.fixture
def empty():
    return mcliplib.create_model("mobileclip_nano", **SMALL)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def compiled_tower(model: mcliplib.MobileCLIP) -> mcliplib.MobileCLIP:
    wrapped = mcliplib.create_model("mobileclip_nano", **SMALL)
    wrapped.load_state_dict(model.state_dict())
    wrapped.image_encoder = torch.compile(wrapped.image_encoder)
    wrapped.text_encoder = nn.DataParallel(wrapped.text_encoder)
    return wrapped


WRAPPERS = {
    "plain": lambda model: model,
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "data parallel around compiled": lambda model: nn.DataParallel(torch.compile(model)),
    "averaged": AveragedModel,
    "its towers": compiled_tower,
}
NAMINGS = {
    "ours": lambda model: model.state_dict(),
    "released": lambda model: to_format(model.state_dict(), model.config, "mobileclip"),
}
FILES = {
    "bare": lambda weights: weights,
    "_orig_mod.": lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()},
    "module._orig_mod.": lambda weights: {f"module._orig_mod.{name}": value for name, value in weights.items()},
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "model": lambda weights: {"model": weights, "optimizer": {"state": {0: {"step": torch.ones(())}}}},
    "Lightning": lambda weights: {
        "state_dict": {f"net.{name}": value for name, value in weights.items()},
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 1e-3},
        "loops": {"fit_loop": {"state_dict": {}}},
    },
    "averaged": lambda weights: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in weights.items()}},
    "nested": lambda weights: {"trainer": {"model": weights}, "loss": {"weight": torch.ones(3)}},
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("wrap", FILES)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_are_found_in_a_wrapped_file(model, empty, wrap, naming, suffix, tmp_path):
    wrapped = FILES[wrap](NAMINGS[naming](model))
    if suffix == ".safetensors":
        if not all(isinstance(value, torch.Tensor) for value in wrapped.values()):
            pytest.skip("a safetensors file holds nothing but names and tensors")
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in wrapped.items()}, tmp_path / "file.safetensors")
    else:
        torch.save(wrapped, tmp_path / "file.pt")
    assert same(mcliplib.load_checkpoint(empty, tmp_path / f"file{suffix}"), model)


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("format", ["safetensors", "mobileclip"])
def test_a_wrapped_model_is_saved_as_the_plain_one(model, wrap, format, tmp_path):
    saved = [tmp_path / f"{name}.{'safetensors' if format == 'safetensors' else 'pt'}" for name in ("plain", "wrapped")]
    for one, path in zip((model, WRAPPERS[wrap](model)), saved, strict=True):
        mcliplib.save_checkpoint(one, path, format=format)
    plain, wrapped = (read_checkpoint(path) for path in saved)
    assert wrapped.header == plain.header
    assert list(wrapped.tensors) == list(plain.tensors)
    assert all(torch.equal(wrapped.tensors[name], tensor) for name, tensor in plain.tensors.items())


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_model_is_filled(model, empty, wrap, tmp_path):
    mcliplib.save_checkpoint(model, tmp_path / "plain.safetensors")
    target = WRAPPERS[wrap](empty)
    assert mcliplib.load_checkpoint(target, tmp_path / "plain.safetensors") is target
    inner = {"its towers": target, "averaged": getattr(target, "module", None)}.get(wrap, empty)
    assert all(torch.equal(a, b) for a, b in zip(inner.state_dict().values(), model.state_dict().values(), strict=True))


def test_something_else_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="must be a MobileCLIP, or one in a wrapper of PyTorch's, got Linear"):
        mcliplib.save_checkpoint(nn.Linear(2, 2), tmp_path / "x.safetensors")


def test_several_models_in_one_file_are_named_with_the_way_to_take_one(model, empty, tmp_path, monkeypatch):
    weights = model.state_dict()
    torch.save({"state_dict": weights, "state_dict_ema": weights}, tmp_path / "timm.pt")
    with pytest.raises(UserError, match=r"timm\.pt: holds several models \(state_dict, state_dict_ema\)") as caught:
        mcliplib.load_checkpoint(empty, tmp_path / "timm.pt")
    cure = re.search(r"torch\.save\(.*\)$", str(caught.value))
    assert cure
    monkeypatch.chdir(tmp_path)
    exec(f"import torch; {cure[0]}")  # what it says works
    assert same(mcliplib.load_checkpoint(empty, tmp_path / "model.pt"), model)


def test_what_is_beside_the_model_is_named(model, empty, tmp_path):
    weights = {f"clip.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": {**weights, "criterion.margin": torch.ones(1)}}, tmp_path / "more.pt")
    with pytest.raises(UserError, match=r"unknown 1: criterion\.margin"):
        mcliplib.load_checkpoint(empty, tmp_path / "more.pt")


def test_a_file_without_weights_says_what_it_holds(empty, tmp_path):
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "notes.pt")
    with pytest.raises(UserError, match=r"holds no state dict \(names with tensors\); it holds epoch, loss"):
        mcliplib.load_checkpoint(empty, tmp_path / "notes.pt")


def test_an_object_that_a_trainer_stored_is_named(model, empty, tmp_path):
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": re.compile("x")}, tmp_path / "objects.pt")
    with pytest.raises(UserError, match=r"it carries \(re\._compile\).*ask.*state dict alone"):
        mcliplib.load_checkpoint(empty, tmp_path / "objects.pt")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short training with averaged weights, and the model that it gave."""
    from mcliplib.train import TrainSettings, train

    settings = TrainSettings(
        preset="mobileclip_pico", data=("emoji-noto",), batch_size=4, samples=8, ema=0.9, dtype="float32",
        image_size=32, warmup_steps=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    from mcliplib.data import load_samples

    return folder, train(settings, folder, samples=load_samples("emoji-noto")[:8]).model


def test_a_runs_folder_and_its_last_state_are_loaded(run, tmp_path):
    """The finished model; of a run that was stopped, the average as it stood."""
    folder, trained = run
    assert same(mcliplib.load_model(folder), trained)
    assert same(mcliplib.create_model("mobileclip_pico", pretrained=str(folder)), trained)
    assert same(mcliplib.load_model(folder / "last.pt"), trained)
    (tmp_path / "last.pt").write_bytes((folder / "last.pt").read_bytes())
    loaded = mcliplib.load_model(tmp_path)
    assert loaded.config == trained.config
    assert same(loaded, trained)


def test_a_last_state_of_before_says_how_to_take_its_model(run, tmp_path):
    state = torch.load(run[0] / "last.pt", weights_only=True)
    del state["config"]
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"last\.pt: holds several models \(model, average\)"):
        mcliplib.load_model(tmp_path)


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"is a folder without model\.safetensors or last\.pt"):
        mcliplib.load_model(tmp_path)


def test_the_home_folder_is_expanded(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    mcliplib.save_checkpoint(model, "~/own.safetensors")
    assert (tmp_path / "own.safetensors").is_file()
    assert same(mcliplib.load_model("~/own.safetensors"), model)


def test_evaluate_takes_what_create_model_takes(run, tmp_path, monkeypatch, capsys):
    from mcliplib.cli import main

    monkeypatch.setenv("HOME", str(run[0].parent))
    output = tmp_path / "scores.json"
    argv = ["evaluate", "--model", f"~/{run[0].name}", "--suite", "gcompris-animals", "--output", str(output)]
    assert main(argv) == 0
    assert json.loads(output.read_text())


@pytest.mark.parametrize(
    ("part", "setting", "value"), [("text", "causal", True), ("text", "head_dim", 32), ("pixels", "mean", (0.5,) * 3)]
)
def test_other_settings_of_the_same_shapes_are_refused(model, empty, part, setting, value, tmp_path):
    from dataclasses import replace

    from mcliplib.model import build

    other = build(replace(model.config, **{part: replace(getattr(model.config, part), **{setting: value})}))
    mcliplib.save_checkpoint(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=rf"other settings.*setting {part}\.{setting}"):
        mcliplib.load_checkpoint(empty, tmp_path / "other.safetensors")
