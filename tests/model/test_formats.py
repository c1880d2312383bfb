"""The released files' format and open_clip's: every key, both ways, read by the other programs' own code."""

import gzip
import json
import pickle
from pathlib import Path

import open_clip
import pytest
import timm
import torch

import mcliplib
from mcliplib import UserError
from mcliplib.checkpoints.formats import as_computed, to_format
from mcliplib.model import build
from mcliplib.presets import PRESETS
from tests.conftest import randomize_

RELEASED = json.loads(gzip.decompress((Path(__file__).parent / "released_keys.json.gz").read_bytes()))
FOREIGN = ("mobileclip", "open_clip")


def filled(name: str, format: str = "mobileclip") -> torch.nn.Module:
    """A preset with weights far from their start, as the programs that use this format compute it."""
    torch.manual_seed(0)
    return randomize_(build(as_computed(PRESETS[name], format)).eval())


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def nano():
    return filled("mobileclip_nano")


@pytest.fixture(scope="module")
def released(nano, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "nano.pt"
    mcliplib.save_checkpoint(nano, path, format="mobileclip")
    return path


@pytest.mark.parametrize("name", RELEASED)
def test_names_and_shapes_are_those_of_the_released_files(name):
    with torch.device("meta"):
        model = build(PRESETS[name])
    named = to_format(model.state_dict(), model.config, "mobileclip")
    assert {key: list(tensor.shape) for key, tensor in named.items()} == RELEASED[name]


@pytest.mark.parametrize(("name", "peer"), [("mobileclip_s1", "MobileCLIP-S1"), ("mobileclip_b", "MobileCLIP-B")])
@pytest.mark.parametrize("format", FOREIGN)
def test_open_clip_loads_what_we_save(name, peer, format, tmp_path):
    """Its own converter reads the released format: an independent check of our names.

    (What it computes with a released MobileCLIP-B is its own function all the same: see test_mobileclip_b.)
    """
    ours = filled(name, "open_clip")
    torch.save(to_format(ours.state_dict(), ours.config, format), tmp_path / "model.pt")
    theirs = open_clip.create_model(peer, pretrained=str(tmp_path / "model.pt"), weights_only=True).eval()
    size = ours.config.image.image_size
    pixels, tokens = torch.rand(1, 3, size, size), mcliplib.get_tokenizer(ours)(["a red flag"])
    with torch.inference_mode():
        torch.testing.assert_close(theirs.encode_image(pixels), ours.encode_image(pixels), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(theirs.encode_text(tokens), ours.encode_text(tokens), rtol=1e-4, atol=1e-5)


def test_timm_loads_the_image_tower_of_a_released_s0():
    from timm.models.fastvit import checkpoint_filter_fn

    ours = filled("mobileclip_s0")
    theirs = timm.create_model("fastvit_mci0", num_classes=512).eval()
    named = to_format(ours.state_dict(), ours.config, "mobileclip")
    theirs.load_state_dict(checkpoint_filter_fn(named, theirs))
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(pixels), ours.encode_image(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", FOREIGN)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_round_trip(format, suffix, tmp_path):
    model = filled("mobileclip_b" if format == "open_clip" else "mobileclip_nano", format)
    path = tmp_path / f"model{suffix}"
    mcliplib.save_checkpoint(model, path, format=format)
    assert same(mcliplib.create_model(model.config.name, pretrained=path), model)
    loaded = mcliplib.load_model(path)  # no name given: told by names and shapes
    assert loaded.config == model.config
    assert same(loaded, model)


def test_weights_in_half_precision_are_read(nano, released, tmp_path):
    half = {name: tensor.half() for name, tensor in torch.load(released, weights_only=True).items()}
    torch.save(half, tmp_path / "half.pt")
    loaded = mcliplib.create_model("mobileclip_nano", pretrained=tmp_path / "half.pt")
    assert loaded.logit_scale.dtype == torch.float32
    assert torch.equal(loaded.logit_scale, nano.logit_scale.half().float())


def test_a_checkpoint_of_open_clips_trainer_is_read(tmp_path):
    model = filled("mobileclip_b", "open_clip")
    named = to_format(model.state_dict(), model.config, "open_clip")
    training = {"epoch": 3, "name": "run", "state_dict": {f"module.{name}": value for name, value in named.items()}}
    torch.save(training, tmp_path / "epoch_3.pt")
    assert same(mcliplib.create_model("mobileclip_b", pretrained=tmp_path / "epoch_3.pt"), model)


def test_an_open_clip_bias_that_a_model_has_no_place_for_is_not_dropped(tmp_path):
    model = filled("mobileclip_b", "open_clip")
    named = to_format(model.state_dict(), model.config, "open_clip")
    named["visual.trunk.head.bias"] = torch.ones(512)
    torch.save(named, tmp_path / "biased.pt")
    with pytest.raises(UserError, match=r"it holds mobileclip2_b.*visual\.trunk\.head\.bias \(must be zero\)"):
        mcliplib.create_model("mobileclip_b", pretrained=tmp_path / "biased.pt")


def test_another_models_file_is_named(released):
    with pytest.raises(
        UserError, match=r"does not fit mobileclip_s0; it holds mobileclip_nano; missing \d+: image_enc"
    ):
        mcliplib.create_model("mobileclip_s0", pretrained=released)


def test_at_most_ten_keys_are_listed(released):
    with pytest.raises(UserError) as caught:
        mcliplib.create_model("mobileclip_s0", pretrained=released)
    missing = str(caught.value).split("missing")[1].split(";")[0]
    assert missing.count("image_encoder.") == 10
    assert missing.endswith("...")


def test_a_folded_released_file_is_recognised(released, tmp_path):
    weights = torch.load(released, weights_only=True)
    folded = {name: value for name, value in weights.items() if "rbr_" not in name}
    folded["image_encoder.model.patch_embed.0.reparam_conv.weight"] = torch.zeros(16, 3, 3, 3)
    torch.save(folded, tmp_path / "folded.pt")
    with pytest.raises(
        UserError, match=r"folded\.pt: does not fit.*reparameterized \(folded\) model.*unknown 1: .*repar"
    ):
        mcliplib.create_model("mobileclip_nano", pretrained=tmp_path / "folded.pt")


def test_one_missing_key_is_named_and_nothing_is_changed(nano, released, tmp_path):
    weights = torch.load(released, weights_only=True)
    del weights["text_encoder.final_layer_norm.bias"]
    torch.save(weights, tmp_path / "short.pt")
    target = mcliplib.create_model("mobileclip_nano")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(UserError, match=r"missing 1: text_encoder\.final_layer_norm\.bias"):
        mcliplib.load_checkpoint(target, tmp_path / "short.pt")
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"image_encoder.model.x": Malicious()}, tmp_path / "evil.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious()))
    for name in ("evil.pt", "bare.pt"):
        with pytest.raises(UserError, match=rf"{name}: refused, because opening it would run code"):
            mcliplib.create_model("mobileclip_nano", pretrained=tmp_path / name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_pytorch_file(released, tmp_path, share):
    whole = released.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"cut\.pt: "):
        mcliplib.load_model(tmp_path / "cut.pt")


@pytest.mark.parametrize("content", [{}, {"a": torch.zeros(1)}, [1, 2], {"a": 3}])
def test_a_file_of_no_known_format(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: (in no format that mcliplib knows|holds no state dict)"):
        mcliplib.load_model(tmp_path / "other.pt")


def test_formats_refuse_what_they_cannot_hold(nano, tmp_path):
    with pytest.raises(UserError, match="mobileclip_nano has the text tower MCt, for which the format 'open_clip'"):
        mcliplib.save_checkpoint(nano, tmp_path / "x.pt", format="open_clip")
    with torch.device("meta"):
        s3 = build(PRESETS["mobileclip2_s3"])
    with pytest.raises(UserError, match="mobileclip2_s3 has a bias in the image projection"):
        mcliplib.save_checkpoint(s3, tmp_path / "x.pt", format="mobileclip")
    with pytest.raises(UserError, match="only mcliplib's own files hold folded models"):
        mcliplib.save_checkpoint(mcliplib.reparameterize(nano), tmp_path / "x.pt", format="mobileclip")
    with pytest.raises(UserError, match="holds no metadata"):
        mcliplib.save_checkpoint(nano, tmp_path / "x.pt", format="mobileclip", metadata={"licence": "MIT"})
    assert list(tmp_path.iterdir()) == []
