"""Equalization leaves the function as it is; the correction takes the mean error of rounding away."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mcliplib
from mcliplib.layers import AttentionBlock, RepMixerBlock, SqueezeExcite
from mcliplib.quantize.equalize import MOST, correct_bias, equalize, pairs, rounded
from tests.conftest import randomize_


def blocks(seed):
    torch.manual_seed(seed)
    made = nn.Sequential(
        RepMixerBlock(32, mixer_kernel=(3, 3), ffn_kernel=(7, 7), mlp_ratio=2.0, scale_branch=True),
        SqueezeExcite(32, 8),
        AttentionBlock(32, ffn_kernel=(3, 3), mlp_ratio=2.0),
    )
    return mcliplib.reparameterize(randomize_(made.eval(), seed))


def spoil(pair, seed):
    """Channels of very different ranges, with the same function."""
    scale = torch.rand(pair.second.weight.shape[1], generator=torch.Generator().manual_seed(seed)) * 20 + 0.05
    rows = slice(-len(scale), None)
    with torch.no_grad():
        pair.first.weight[rows] *= scale.reshape(-1, *[1] * (pair.first.weight.dim() - 1))
        pair.first.bias[rows] *= scale
        pair.second.weight /= scale.reshape(1, -1, *[1] * (pair.second.weight.dim() - 2))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_function_stays(seed):
    module, x = blocks(seed), torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        before = module(x)
    for pair in pairs(module):
        spoil(pair, seed)
    assert len(list(pairs(module))) == 4
    assert equalize(module, x) > 0
    with torch.inference_mode():
        after = module(x)
    assert torch.allclose(before, after, atol=1e-4 * float(before.abs().max()), rtol=1e-3)


def test_spoilt_channels_round_better_afterwards():
    module, x = blocks(0), torch.randn(4, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    pair = next(pairs(module))
    spoil(pair, 0)
    before = [layer.weight.detach().flatten(1).abs().amax(1).log().std() for layer in pair[:1]]
    equalize(module, x)
    assert pair.first.weight.detach().flatten(1).abs().amax(1).log().std() < before[0]


def test_a_scale_is_bounded_and_dead_channels_stay():
    module, x = blocks(0), torch.randn(2, 32, 8, 8)
    pair = next(pairs(module))
    with torch.no_grad():
        pair.first.weight[3] = 0
        pair.first.weight[4] *= 1e6
    before = pair.second.weight.detach().clone()
    equalize(module, x)
    ratio = (pair.second.weight / before)[:, :, 0, 0].detach()
    assert torch.isfinite(ratio).all()
    assert ratio.max() <= MOST * 1.001
    assert ratio.min() >= 0.999 / MOST


def test_the_correction_takes_the_mean_error_away():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 1, groups=2).eval()
    x = torch.rand(16, 8, 4, 4) + 1  # whose mean is far from zero
    with torch.inference_mode():
        wanted = conv(x).mean(dim=(0, 2, 3))
    correct_bias(conv, x, [conv])
    with torch.inference_mode():
        conv.weight.copy_(rounded(conv.weight))
        assert torch.allclose(conv(x).mean(dim=(0, 2, 3)), wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)])
def test_rounded_weights_are_multiples_of_a_step_per_row(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = rounded(weight)
    steps = weight.flatten(1).abs().amax(dim=1) / 127
    levels = made.flatten(1) / steps[:, None]
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert ((made - weight).flatten(1).abs() <= 0.501 * steps[:, None]).all()
