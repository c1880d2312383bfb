"""A convolution, by the kernels that are right and fast where it trains."""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_LARGE_KERNEL = 25  # taps
_PIXEL_PAIRS = {1: 1_300, 2: 6_000}  # inputs x outputs, by outputs of a channel: products are faster up to these


def convolve(conv: nn.Conv2d, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
    """What `conv(x)` is.

    Only on CPUs and in training it is computed in another way, where PyTorch's own is wrong or slow.
    """
    if x.device.type != "cpu":
        return conv(x)
    if conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.groups == 1:
        # The fp32 channels-last backward of a strided 1x1 convolution with few input channels writes outside of its
        # memory (oneDNN, issue 6035).
        return nn.functional.conv2d(_every(conv.stride, x), conv.weight, conv.bias)
    if not conv.training or conv.groups == 1 or torch.is_inference_mode_enabled():
        return conv(x)  # without gradient, training must give the same numbers: `train.cached` encodes twice
    with torch.autocast("cpu", enabled=False):  # a depthwise convolution's bf16 backward is up to ten times slower
        x = x.to(conv.weight.dtype)
        if _is_small(conv, x) and not isinstance(conv.padding, str):
            return depthwise_products(x, conv.weight, conv.bias, conv.stride, conv.padding)
        return conv(x)


def depthwise_products(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "out 1 kh kw"],
    bias: Float[Tensor, " out"] | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Float[Tensor, "b out h2 w2"]:
    """A depthwise convolution as one matrix product for each channel, from all pixels to all pixels.

    On a small map, most taps of a large kernel lie outside, and a library's loops over rows have nothing to run along.
    With several outputs of a channel they are slow at any size. There, this is up to twenty times faster.
    """
    b, c, h, w = x.shape
    out, _, *kernel = weight.shape
    height, width = (_outputs(*axis) for axis in zip((h, w), kernel, stride, padding, strict=True))
    taps = _taps((h, w), tuple(kernel), stride, padding)
    table = torch.cat([weight.flatten(1).T, weight.new_zeros(1, out)])
    by_pair = nn.functional.embedding(taps, table, padding_idx=len(table) - 1)  # [pixels in, pixels out, channels out]
    # Contiguous, or PyTorch copies and multiplies the channels one by one; in the backward pass too.
    matrices = by_pair.unflatten(2, (c, out // c)).permute(2, 0, 3, 1).flatten(2).contiguous()
    made = x.permute(1, 0, 2, 3).flatten(2).contiguous() @ matrices  # [c, b, outputs of the channel x pixels out]
    if made.requires_grad:
        made.register_hook(Tensor.contiguous)
    wide = made.view(c, b, out // c, height, width).transpose(0, 1).flatten(1, 2)
    if bias is not None:
        wide = wide + bias[:, None, None]
    return wide.contiguous(memory_format=torch.channels_last)


def _is_small(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether products are faster: measured with channels last, on one core."""
    if conv.groups != conv.in_channels or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return False
    several = conv.out_channels // conv.in_channels
    if several == 1 and conv.weight[0, 0].numel() < _LARGE_KERNEL:
        return False
    pairs = x[0, 0].numel()
    for axis in zip(x.shape[2:], conv.kernel_size, conv.stride, conv.padding, strict=True):
        pairs *= _outputs(*axis)
    return pairs <= _PIXEL_PAIRS[min(several, 2)]


def _outputs(length: int, kernel: int, stride: int, padding: int) -> int:
    """Along one axis."""
    return (length + 2 * padding - kernel) // stride + 1


@cache
def _taps(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> Int[Tensor, "pixels pixels_out"]:
    """Which tap of the kernel leads from each pixel in to each pixel out; one more than the last where none does."""
    along = []
    for length, taps, step, before in zip(size, kernel, stride, padding, strict=True):
        places = torch.arange(_outputs(length, taps, step, before)) * step - before
        along.append(torch.arange(length)[:, None] - places)  # [in, out]
    row, column = along[0][:, None, :, None], along[1][None, :, None, :]
    inside = (row >= 0) & (row < kernel[0]) & (column >= 0) & (column < kernel[1])
    tap = torch.where(inside, row * kernel[1] + column, kernel[0] * kernel[1])
    return tap.flatten(2).flatten(0, 1)


def _every(stride: tuple[int, ...], x: Tensor) -> Tensor:
    """The pixels that a strided 1x1 kernel sees, in the layout of x."""
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return x[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=layout)
