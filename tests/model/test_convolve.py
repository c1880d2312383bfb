"""Convolutions in training, computed in other ways, are convolutions: outputs and gradients, against PyTorch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mcliplib.layers import cpu as module
from mcliplib.layers.cpu import convolve, depthwise_products


def leaves(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 7, 11])),
    stride=st.integers(1, 3),
    several=st.integers(1, 3),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_products_are_the_depthwise_convolution(size, kernel, stride, several, bias, seed):
    padding = (kernel[0] // 2, kernel[1] // 2)
    x, weight, offset = leaves((2, 3, *size), (3 * several, 1, *kernel), (3 * several,), seed=seed)
    used = [x, weight, *([offset] if bias else [])]
    ours = depthwise_products(x, weight, offset if bias else None, (stride, stride), padding)
    theirs = nn.functional.conv2d(x, weight, offset if bias else None, stride, padding, groups=3)
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(theirs)
    for one, other in zip(
        torch.autograd.grad(ours, used, direction), torch.autograd.grad(theirs, used, direction), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("channels", "out", "size", "kernel", "stride", "by_products"),
    [
        (8, 8, (2, 2), (7, 7), 1, True),  # the last stage at 64 px
        (8, 16, (6, 6), (7, 7), 2, True),  # a patch embedding: two outputs of each channel
        (8, 16, (12, 12), (7, 7), 2, True),
        (8, 16, (40, 40), (7, 7), 2, False),  # a large map
        (8, 8, (4, 4), (3, 3), 1, False),  # a small kernel
        (8, 8, (1, 12), (1, 11), 1, False),  # the text's mixer
    ],
)
def test_training_uses_products_where_they_are_faster(channels, out, size, kernel, stride, by_products, monkeypatch):
    used = []
    monkeypatch.setattr(module, "depthwise_products", lambda *a: used.append(1) or depthwise_products(*a))
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=padding, groups=channels)
    x = torch.randn(2, channels, *size)
    torch.testing.assert_close(convolve(conv, x), conv(x), rtol=1e-4, atol=1e-5)
    assert bool(used) == by_products
    with torch.no_grad():  # the gradient cache encodes so first, and must see the same features
        without = convolve(conv, x)
    assert torch.equal(without, convolve(conv, x))
    used.clear()
    conv.eval()
    assert torch.equal(convolve(conv, x), conv(x))  # in eval mode it is PyTorch's own
    assert not used
    conv.train()
    with torch.inference_mode():  # the table of taps, which is remembered, must be of use in training
        assert torch.equal(convolve(conv, x), conv(x))


def test_other_groups_and_bf16_autocast_stay_right():
    x = torch.randn(2, 8, 3, 3)
    grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
    torch.testing.assert_close(convolve(grouped, x), grouped(x))
    depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
    with torch.autocast("cpu", torch.bfloat16):
        made = convolve(depthwise, x.bfloat16())
    assert made.dtype == torch.float32  # what follows, BatchNorm, takes either
    torch.testing.assert_close(made, depthwise(x.bfloat16().float()), rtol=1e-4, atol=1e-5)
