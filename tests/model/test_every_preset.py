"""Every preset through every format that has a place for it: out and in, equal tensors and equal outputs."""

from dataclasses import replace

import pytest
import torch

import mcliplib
from mcliplib import UserError
from mcliplib.checkpoints import FORMATS, formats, read_header
from mcliplib.image_encoder import MCiConfig
from mcliplib.layers.fold import is_folded
from mcliplib.model import MobileCLIP, ModelConfig, build
from mcliplib.presets import PRESETS
from tests.conftest import randomize_


def shallow(config: ModelConfig) -> ModelConfig:
    """The same architecture with few blocks, at its smallest size: all kinds of tensors, a tenth of the memory."""
    image, text = config.image, replace(config.text, layers=2)
    if isinstance(image, MCiConfig):
        small = replace(image, depths=(1,) * len(image.depths), image_size=64)
    else:
        small = replace(image, layers=2, grid=4, image_size=4 * image.patch_size)
    return replace(config, image=small, text=text, vocab=None)


@pytest.fixture(scope="module", params=PRESETS)
def model(request):
    """A preset with weights and statistics far from their start."""
    torch.manual_seed(0)
    return randomize_(build(shallow(PRESETS[request.param])).eval())


def outputs(model: MobileCLIP) -> list[torch.Tensor]:
    size = model.config.image.image_size
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return [model.encode_image(pixels), model.encode_text(mcliplib.get_tokenizer(model)(["a red flag"]))]


def same(one: MobileCLIP, other: MobileCLIP) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return equal and all(torch.equal(a, b) for a, b in zip(outputs(one), outputs(other), strict=True))


def addresses(model: MobileCLIP) -> set[int]:
    return {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}


@pytest.mark.parametrize("format", FORMATS)
def test_out_and_in(model, format, tmp_path, monkeypatch):
    config = formats.as_computed(model.config, format)
    if formats.FORMATS[format].lacks(config):
        with pytest.raises(UserError, match=f"for which the format {format!r} has no place"):
            mcliplib.save_checkpoint(model, tmp_path / "model.pt", format=format)
        return
    saved = build(config).eval()
    saved.load_state_dict(model.state_dict())
    path = tmp_path / ("model.safetensors" if format == "safetensors" else "model.pt")
    mcliplib.save_checkpoint(saved, path, format=format)
    monkeypatch.setitem(PRESETS, config.name, model.config)
    monkeypatch.setattr("mcliplib.checkpoints.fit.PRESETS", {config.name: model.config})
    for loaded in (mcliplib.create_model(config.name, pretrained=path), mcliplib.load_model(path)):
        assert loaded.config == config
        assert same(loaded, saved)
    assert same(mcliplib.load_checkpoint(build(model.config).eval(), path), saved)


def test_folded_out_and_in(model, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = mcliplib.reparameterize(model)
    assert is_folded(fast)
    assert not is_folded(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not addresses(fast) & addresses(model)
    del before
    path = tmp_path / "fast.safetensors"
    mcliplib.save_checkpoint(fast, path)
    assert read_header(path)["folded"] == "true"
    loaded = mcliplib.load_model(path)
    assert is_folded(loaded)
    assert same(loaded, fast)
    with pytest.raises(UserError, match="the file is folded, the model is not alike"):
        mcliplib.load_checkpoint(build(model.config).eval(), path)
