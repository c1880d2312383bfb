"""MobileCLIP-B is two functions with the same weights: the release's and timm's. Each file gives its own."""

from dataclasses import replace

import open_clip
import pytest
import torch
from torch.nn import functional as F

import mcliplib
from mcliplib import UserError
from mcliplib.checkpoints import read_header
from mcliplib.checkpoints.formats import as_computed, config_from_json, to_format
from mcliplib.model import build
from mcliplib.presets import PRESETS
from tests.conftest import randomize_

SHALLOW = replace(PRESETS["mobileclip_b"], image=replace(PRESETS["mobileclip_b"].image, layers=2))


@pytest.fixture(scope="module")
def released():
    torch.manual_seed(0)
    return randomize_(build(SHALLOW).eval())


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def restated(w: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """The released image tower, written down from its description, on weights under the released names."""
    w = {name.removeprefix("image_encoder.model."): tensor for name, tensor in w.items()}

    def conv_norm(x, at, stride, padding):
        x = F.conv2d(x, w[f"{at}.block.conv.weight"], stride=stride, padding=padding)
        statistics = (w[f"{at}.block.norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.gelu(F.batch_norm(x, *statistics))

    def norm(x, at):
        return F.layer_norm(x, (768,), w[f"{at}.weight"], w[f"{at}.bias"], eps=1e-5)

    x = conv_norm(pixels, "patch_emb.0", 4, 1)
    x = conv_norm(x, "patch_emb.1", 2, 0)
    x = F.conv2d(x, w["patch_emb.2.block.conv.weight"], w["patch_emb.2.block.conv.bias"], stride=2)
    x = x.flatten(2).transpose(1, 2) + w["pos_embed.pos_embed.pos_embed"][0]
    x = torch.cat([w["cls_token"].expand(len(x), 1, -1), x], dim=1)
    for layer in range(2):
        at = f"transformer.{layer}"
        mha = f"{at}.pre_norm_mha.1"
        qkv = F.linear(norm(x, f"{at}.pre_norm_mha.0"), w[f"{mha}.qkv_proj.weight"], w[f"{mha}.qkv_proj.bias"])
        q, k, v = qkv.unflatten(2, (3, 12, 64)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1) / 8).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, w[f"{mha}.out_proj.weight"], w[f"{mha}.out_proj.bias"])
        ffn = f"{at}.pre_norm_ffn"
        wide = F.gelu(F.linear(norm(x, f"{ffn}.0"), w[f"{ffn}.1.weight"], w[f"{ffn}.1.bias"]))
        x = x + F.linear(wide, w[f"{ffn}.4.weight"], w[f"{ffn}.4.bias"])
    return norm(x, "post_transformer_norm")[:, 0] @ w["classifier.proj"]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def test_the_preset_is_the_released_function(released, pixels):
    named = to_format(released.state_dict(), released.config, "mobileclip")
    with torch.inference_mode():
        assert relative(released.encode_image(pixels), restated(named, pixels)) < 1e-5
        assert relative(mcliplib.reparameterize(released).encode_image(pixels), restated(named, pixels)) < 1e-4


def test_a_released_file_gives_the_released_function(tmp_path, pixels):
    torch.manual_seed(0)
    model = mcliplib.create_model("mobileclip_b")
    mcliplib.save_checkpoint(model, tmp_path / "mobileclip_blt.pt", format="mobileclip")
    for loaded in (mcliplib.load_model(tmp_path / "mobileclip_blt.pt"),
                   mcliplib.create_model("mobileclip_b", pretrained=tmp_path / "mobileclip_blt.pt")):  # fmt: skip
        assert (loaded.config.image.stem_padding, loaded.config.image.norm_eps) == (1, 1e-5)
        with torch.inference_mode():
            assert torch.equal(loaded.encode_image(pixels), model.encode_image(pixels))


def test_an_open_clip_file_gives_open_clips_function(tmp_path, pixels):
    """Whichever way it is loaded; the settings stand in the header of what is saved afterwards."""
    torch.manual_seed(0)
    theirs = open_clip.create_model("MobileCLIP-B").eval()
    torch.nn.init.zeros_(theirs.visual.trunk.head.bias)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    with torch.inference_mode():
        expected = theirs.encode_image(pixels)
    del theirs
    path = tmp_path / "theirs.pt"
    filled = mcliplib.load_checkpoint(mcliplib.create_model("mobileclip_b"), path)
    for ours in (filled, mcliplib.create_model("mobileclip_b", pretrained=path), mcliplib.load_model(path)):
        assert (ours.config.image.stem_padding, ours.config.image.norm_eps) == (0, 1e-6)
        with torch.inference_mode():
            assert relative(ours.encode_image(pixels), expected) < 1e-4
    mcliplib.save_checkpoint(filled, tmp_path / "again.safetensors")
    assert config_from_json(read_header(tmp_path / "again.safetensors")["config"]) == filled.config
    with torch.inference_mode():
        again = mcliplib.load_model(tmp_path / "again.safetensors").encode_image(pixels)
    assert relative(again, expected) < 1e-4


def test_the_two_functions_differ_by_two_per_cent(released, pixels):
    """The figure on the page of the checkpoints; most of it from the padding."""
    theirs = build(as_computed(released.config, "open_clip")).eval()
    theirs.load_state_dict(released.state_dict())
    with torch.inference_mode():
        assert 0.005 < relative(theirs.encode_image(pixels), released.encode_image(pixels)) < 0.1


def test_a_variant_is_not_saved_where_it_has_no_place(released, tmp_path):
    with pytest.raises(UserError, match=r"patch stem padded by 1 .* eps 1e-05, for which the format 'open_clip'"):
        mcliplib.save_checkpoint(released, tmp_path / "x.pt", format="open_clip")
    timm = build(as_computed(SHALLOW, "open_clip"))
    with pytest.raises(UserError, match=r"patch stem padded by 0 .* eps 1e-06, for which the format 'mobileclip'"):
        mcliplib.save_checkpoint(timm, tmp_path / "x.pt", format="mobileclip")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_other_function_does_not_fit_silently(released, tmp_path):
    mcliplib.save_checkpoint(released, tmp_path / "released.safetensors")
    timm = build(as_computed(SHALLOW, "open_clip"))
    with pytest.raises(UserError, match=r"other settings.*image\.norm_eps 1e-05 for 1e-06.*stem_padding 1 for 0"):
        mcliplib.load_checkpoint(timm, tmp_path / "released.safetensors")
