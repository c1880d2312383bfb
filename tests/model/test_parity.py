"""Every model that open_clip has, against open_clip on the same random weights; MCi0 alone against timm."""

import open_clip
import pytest
import timm
import torch
from torch import nn

import mcliplib
from mcliplib.checkpoints.formats import as_computed, to_format
from mcliplib.latency.peers import PEERS
from mcliplib.model import build
from mcliplib.presets import PRESETS
from mcliplib.vit import ViTConfig
from tests.conftest import randomize_

OPEN_CLIP = {ours: theirs for ours, theirs in PEERS["open_clip"].models.items() if ours != "mobileclip_s0"}  # no MCt
TEXTS = ["два пса на жёлтом диване", "猫と犬 🐈", "x " * 200]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def without_drop_path(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if isinstance(part, timm.layers.DropPath):
            part.drop_prob = 0.0
    return model


@pytest.fixture(scope="module", params=OPEN_CLIP)
def pair(request):
    """Our model and open_clip's with the same weights (in the same memory): all far from their start."""
    torch.manual_seed(0)
    ours = randomize_(build(as_computed(PRESETS[request.param], "open_clip")).eval()).requires_grad_(False)
    if ours.config.image.proj_bias:
        head = ours.image_encoder.proj if hasattr(ours.image_encoder, "proj") else ours.image_encoder.head.proj  # type: ignore[attr-defined]
        nn.init.normal_(head.bias)
    with torch.device("meta"):  # no weights of its own
        theirs = without_drop_path(open_clip.create_model(OPEN_CLIP[request.param], device="meta"))
    theirs.load_state_dict(to_format(ours.state_dict(), ours.config, "open_clip"), assign=True)
    if theirs.text.attn_mask is not None:  # not among the weights
        theirs.text.attn_mask = theirs.text.build_causal_mask()
    assert not any(tensor.is_meta for tensor in [*theirs.parameters(), *theirs.buffers()])
    return ours, theirs.requires_grad_(False)


def pixels_for(model) -> torch.Tensor:
    """Small, for time: 2 x 2 positions are left in an MCi's last stage; a ViT needs its own size."""
    image = model.config.image
    batch, size = (1, image.image_size) if isinstance(image, ViTConfig) else (3, 2 ** (len(image.widths) + 2))
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_image_features_and_gradients(pair, train):
    ours, theirs = (model.train(train) for model in pair)
    outputs, gradients = [], []
    for encode in (ours.encode_image, theirs.encode_image):
        x = pixels_for(ours).requires_grad_()
        features = encode(x)
        (features * torch.linspace(-1, 1, features.shape[1])).sum().backward()
        outputs.append(features.detach())
        gradients.append(x.grad)
    assert relative(*outputs) < 1e-4
    assert relative(*gradients) < 1e-4


@pytest.mark.slow
def test_text_features_and_gradients(pair):
    """Train and eval mode are the same in CLIP's text tower."""
    ours, theirs = pair
    tokens = open_clip.get_tokenizer(OPEN_CLIP[ours.config.name])(TEXTS)
    assert torch.equal(mcliplib.get_tokenizer(ours)(TEXTS), tokens)
    outputs, gradients = [], []
    for model, embedding in ((ours, ours.text_encoder.embedding), (theirs, theirs.text.token_embedding)):
        embedding.weight.requires_grad_(True).grad = None
        features = model.encode_text(tokens)
        (features * torch.linspace(-1, 1, features.shape[1])).sum().backward()
        outputs.append(features.detach())
        gradients.append(embedding.weight.grad.clone())
        embedding.weight.requires_grad_(False).grad = None
    assert relative(*outputs) < 1e-4
    assert relative(*gradients) < 1e-4


@pytest.mark.slow
def test_folded(pair):
    ours = pair[0].eval()
    inputs = {"image": pixels_for(ours)[:1], "text": mcliplib.get_tokenizer(ours)(TEXTS[:1])}
    for name, x in inputs.items():  # one tower after the other, for memory
        tower = getattr(ours, f"{name}_encoder")
        fast = mcliplib.reparameterize(tower)
        with torch.inference_mode():
            assert relative(fast(x), tower(x)) < 1e-4
        del fast


def test_preprocessing(pair, colourful):
    ours, _ = pair
    name = OPEN_CLIP[ours.config.name]
    tag = open_clip.list_pretrained_tags_by_model(name)[0]
    settings = open_clip.get_pretrained_cfg(name, tag)
    transform = open_clip.image_transform(
        ours.config.image.image_size,
        is_train=False,
        mean=settings["mean"],
        std=settings["std"],
        interpolation=settings["interpolation"],
        resize_mode=settings["resize_mode"],
    )
    assert torch.equal(mcliplib.get_preprocess(ours)(colourful), transform(colourful))


@pytest.mark.parametrize("train", [False, True])
def test_mci0_against_timm(train):
    """MobileCLIP-S0 is not in open_clip (it has no MCt), but its image tower is in timm."""
    torch.manual_seed(0)
    model = randomize_(mcliplib.create_model("mobileclip_s0"))
    # Named for open_clip as the same image tower under another text tower.
    named = to_format(model.state_dict(), model.config, "open_clip")
    trunk = {name.removeprefix("visual.trunk."): tensor for name, tensor in named.items() if name.startswith("visual.")}
    theirs = timm.create_model("fastvit_mci0", num_classes=512).train(train)
    theirs.load_state_dict(trunk)
    outputs, gradients = [], []
    for tower in (model.image_encoder.train(train), theirs):
        x = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(1)).requires_grad_()
        features = tower(x)
        (features * torch.linspace(-1, 1, 512)).sum().backward()
        outputs.append(features.detach())
        gradients.append(x.grad)
    assert relative(*outputs) < 1e-4
    assert relative(*gradients) < 1e-4


def test_every_preset_is_compared_with_a_peer_or_restated():
    restated = {"mobileclip_s0", "mobileclip_nano", "mobileclip_pico"}  # test_mct_restated
    assert set(PRESETS) == set(OPEN_CLIP) | restated
