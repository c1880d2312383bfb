"""Each block: shapes, and its fold equal in float64 for random statistics and shapes."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mcliplib
from mcliplib import reparameterize
from mcliplib.layers import (
    AttentionBlock,
    ConvBN,
    ConvFFN,
    LargeKernelConv,
    LayerScale,
    MobileOneBlock,
    RepCPE,
    RepMixer,
    RepMixerBlock,
    SelfAttention,
    TransformerLayer,
    patch_embed,
)
from mcliplib.layers.cpu import WIDE, PointwiseLinear, WideDepthwise, optimize_for_cpu
from mcliplib.text_encoder import TextConfig, TokenRepMixer
from tests.conftest import randomize_

BLOCKS = {
    "conv_bn": lambda c: ConvBN(c, 2 * c, (3, 3), groups=c),
    "mobileone_full": lambda c: MobileOneBlock(c, c, (3, 3), groups=c),
    "mobileone_strided": lambda c: MobileOneBlock(c, 2 * c, (3, 3), stride=2),
    "mobileone_dense_skip": lambda c: MobileOneBlock(c, c, (3, 3)),
    "mobileone_pointwise": lambda c: MobileOneBlock(c, c, (1, 1), activation=False),
    "mobileone_se": lambda c: MobileOneBlock(c, 2 * c, (3, 3), groups=c, squeeze_excite=4),
    "repmixer": lambda c: RepMixer(c, (3, 3), scale_branch=True),
    "repmixer_tokens": lambda c: RepMixer(c, (1, 11), scale_branch=False),
    "conv_ffn": lambda c: ConvFFN(c, 3 * c, (7, 7)),
    "repmixer_block": lambda c: RepMixerBlock(
        c, mixer_kernel=(3, 3), ffn_kernel=(7, 7), mlp_ratio=3.0, scale_branch=True
    ),
    "attention_block": lambda c: AttentionBlock(c, ffn_kernel=(7, 7), mlp_ratio=3.0, head_dim=c // 2, drop_path=0.3),
    "large_kernel": lambda c: LargeKernelConv(c, 2 * c, squeeze_excite=False),
    "large_kernel_se": lambda c: LargeKernelConv(c, 2 * c, squeeze_excite=True),
    "patch_embed": lambda c: patch_embed(c, 2 * c, squeeze_excite=True),
    "rep_cpe": lambda c: RepCPE(c),
}


@pytest.mark.parametrize("name", BLOCKS)
@given(
    channels=st.sampled_from([4, 8, 12]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=15, deadline=None)
def test_fold_is_exact(name, channels, height, width, seed):
    torch.manual_seed(seed)
    block = randomize_(BLOCKS[name](channels), seed).double().eval()
    x = torch.randn(2, channels, height, width, dtype=torch.float64)
    with torch.no_grad():
        expected, folded = block(x), reparameterize(block)(x)
    assert torch.linalg.vector_norm(folded - expected) <= 1e-12 * torch.linalg.vector_norm(expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_folded_block_is_plain(name):
    folded = reparameterize(BLOCKS[name](8).eval())
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d | nn.Identity | LayerScale)]
    assert not folded.training


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in ("patch_embed", "rep_cpe")])
def test_fold_refuses_train_mode(name):
    with pytest.raises(RuntimeError, match=r"train mode; call \.eval\(\)"):
        BLOCKS[name](8).train().fuse()


@pytest.mark.parametrize("name", BLOCKS)
def test_folded_block_shares_nothing(name):
    block = BLOCKS[name](8).eval()
    own = {parameter.data_ptr() for parameter in block.parameters()}
    assert not own & {parameter.data_ptr() for parameter in reparameterize(block).parameters()}


def test_fold_is_wrong_when_statistics_drift(randomize):
    """The test above can fail: other statistics, another function."""
    block = randomize(MobileOneBlock(8, 8, (3, 3), groups=8)).eval()
    folded = reparameterize(block)
    block.conv.bn.running_mean.add_(1.0)
    x = torch.randn(2, 8, 5, 5)
    assert not torch.allclose(folded(x), block(x), atol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_reading_one_token_is_the_whole_layer_at_that_token(randomize, causal, folded, train):
    """Forward and gradient, at the ends and in the middle, also where BatchNorm sees all tokens."""
    layer = randomize(nn.Sequential(TransformerLayer(16, head_dim=8, mlp_ratio=4.0, causal=causal),
                                    TokenRepMixer(TextConfig(width=16))).double())  # fmt: skip
    layer = mcliplib.reparameterize(layer.eval()) if folded else layer.train(train)
    for part in layer:
        x = torch.randn(3, 30, 16, dtype=torch.float64, requires_grad=True)
        at = torch.tensor([0, 29, 13])
        whole, read = part(x)[torch.arange(3), at], part.forward_at(x, at)
        torch.testing.assert_close(read, whole)
        gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (whole, read)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("channels", "multiplier", "stride"), [(4, 2, 2), (6, 3, 1)])
def test_wide_depthwise_is_the_grouped_convolution(channels, multiplier, stride):
    conv = nn.Conv2d(channels, multiplier * channels, 7, stride=stride, padding=3, groups=channels).double()
    x = torch.randn(2, channels, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(WideDepthwise(conv)(x), conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_linear_is_the_convolution(bias, layout):
    conv = nn.Conv2d(6, 10, 1, bias=bias).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64).to(memory_format=layout)
    with torch.no_grad():
        torch.testing.assert_close(PointwiseLinear(conv)(x), conv(x), rtol=1e-12, atol=1e-12)


def test_only_wide_1x1_convolutions_become_linear():
    width = 2 * int(WIDE**0.5)
    layers = nn.Sequential(
        nn.Conv2d(width, width, 1),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(width, width, 1, groups=2),
        nn.Conv2d(width, width, 1, stride=2),
        nn.Conv2d(width, width, 1, padding=1),
        nn.Conv2d(width, width, 3, padding=1),
    )
    assert [type(layer) for layer in optimize_for_cpu(layers)] == [PointwiseLinear] + 5 * [nn.Conv2d]
    assert [type(layer) for layer in layers] == 6 * [nn.Conv2d]


def test_causal_attention_sees_no_later_token():
    attention = SelfAttention(16, head_dim=8, qkv_bias=True, causal=True)
    x = torch.randn(1, 5, 16)
    changed = x.clone()
    changed[:, 3:] += 1.0
    difference = (attention(changed) - attention(x)).abs().amax(dim=-1)[0]
    assert difference[:3].max() < 1e-6 < difference[3:].min()


def test_depthwise_is_fp32_under_cpu_autocast_in_training_only():
    block = ConvBN(8, 8, (3, 3), groups=8)
    with torch.autocast("cpu", torch.bfloat16):
        assert block.train()(torch.randn(2, 8, 5, 5)).dtype == torch.float32
        assert block.eval()(torch.randn(2, 8, 5, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [8, 9, 64])
def test_a_strided_1x1_convolution_is_pytorchs(layout, size):
    """In channels-last fp32, PyTorch's own gradient of it may be wrong on CPUs; compared in float64, contiguous."""
    generator = torch.Generator().manual_seed(0)
    block = ConvBN(3, 16, (1, 1), stride=2)
    exact = copy.deepcopy(block).double()
    x = torch.randn(4, 3, size, size, generator=generator)
    once = x.to(memory_format=layout).requires_grad_()
    other = x.detach().double().requires_grad_()
    found, expected = block.to(memory_format=layout)(once), exact.bn(exact.conv(other))
    weights = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    (found * weights.float()).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(block.conv.weight.grad.double(), exact.conv.weight.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(once.grad.double(), other.grad, rtol=1e-3, atol=1e-4)
