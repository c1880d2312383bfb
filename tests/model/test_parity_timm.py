"""The MCi0 tower against timm's `fastvit_mci0` on the same random weights."""

import re

import pytest
import timm
import torch

import mcliplib

# ours -> timm's, applied in order
RENAMES = (
    (r"^expand\.", "final_conv."),
    (r"^proj\.", "head.fc."),
    (r"\.downsample\.spatial\.large\.", ".downsample.proj.0.large_conv."),
    (r"\.downsample\.spatial\.small\.", ".downsample.proj.0.small_conv."),
    (r"\.downsample\.spatial\.se\.", ".downsample.proj.0.se."),
    (r"\.downsample\.pointwise\.", ".downsample.proj.1."),
    (r"\.position\.conv\.", ".pos_emb.reparam_conv_or_conv."),
    (r"\.token_mixer\.attention\.", ".token_mixer."),
    (r"\.token_mixer\.norm\.", ".token_mixer.norm.identity."),
    (r"\.conv_ffn\.", ".mlp."),
    (r"\.mlp\.conv\.", ".MLPCONV."),
    (r"\.se\.reduce\.", ".se.fc1."),
    (r"\.se\.expand\.", ".se.fc2."),
    (r"\.skip\.", ".identity."),
    (r"\.scale\.", ".conv_scale."),
    (r"(^stem\.\d|mixer\.mixer|proj\.1|final_conv)\.conv\.", r"\1.conv_kxk.0."),
    (r"\.MLPCONV\.", ".mlp.conv."),
)


def to_timm(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.fixture(scope="module")
def towers():
    from tests.conftest import randomize_

    torch.manual_seed(0)
    ours = randomize_(mcliplib.create_model("mobileclip_s0").image_encoder)
    theirs = timm.create_model("fastvit_mci0", num_classes=512)
    theirs.head.fc.bias.data.zero_()
    weights = {to_timm(name): tensor for name, tensor in ours.state_dict().items()}
    scales = {k: v[:, None, None] if k.endswith("gamma") else v for k, v in weights.items()}
    renamed = {_pos_emb(k, theirs): v for k, v in scales.items()}
    missing, unknown = theirs.load_state_dict(renamed, strict=False)
    assert missing == ["head.fc.bias"]
    assert unknown == []
    return ours, theirs


def _pos_emb(name: str, theirs) -> str:
    if ".pos_emb." not in name:
        return name
    stem, member = name.split(".pos_emb.")[0], name.rsplit(".", 1)[1]
    return next(k for k in theirs.state_dict() if k.startswith(f"{stem}.pos_emb.") and k.endswith(member))


@pytest.mark.parametrize("train", [False, True])
def test_features_and_gradients_agree(towers, train):
    ours, theirs = (tower.train(train) for tower in towers)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(3, 3, 96, 96, generator=generator)
    outputs, gradients = [], []
    for tower in (ours, theirs):
        x = pixels.clone().requires_grad_()
        tower.zero_grad()
        y = tower(x)
        (y * torch.linspace(-1, 1, y.shape[1])).sum().backward()
        outputs.append(y.detach())
        gradients.append(x.grad)
    for a, b in (outputs, gradients):
        assert torch.linalg.vector_norm(a - b) < 1e-4 * torch.linalg.vector_norm(b)
