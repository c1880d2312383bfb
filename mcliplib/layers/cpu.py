"""Tricks for CPUs: the same functions by kernels that run fast there.

Layers in training use `convolve` and `attention_in_steps`; `optimize_for_cpu` re-lays a folded model, if wanted.
"""

import copy
from functools import cache
from typing import TypeGuard, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_LARGE_KERNEL = 25  # taps
_PIXEL_PAIRS = {1: 1_300, 2: 6_000}  # inputs x outputs, by outputs of a channel: products are faster up to these
WIDE = 2**19  # weights
_SHORT = 32  # tokens, below which matrix products are too small to gain from bf16
Module = TypeVar("Module", bound=nn.Module)


def convolve(conv: nn.Conv2d, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
    """Compute `conv(x)`.

    Only on CPUs and in training it is computed in another way, where PyTorch's own is wrong or slow.
    """
    if x.device.type != "cpu":
        return conv(x)
    if conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.groups == 1:
        # The fp32 channels-last backward of a strided 1x1 convolution with few input channels writes outside of its
        # memory (oneDNN, issue 6035).
        return nn.functional.conv2d(_every(conv.stride, x), conv.weight, conv.bias)
    if not conv.training or conv.groups == 1 or torch.is_inference_mode_enabled():
        return conv(x)  # without gradient, training must give the same numbers: `backward_in_parts` encodes twice
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
    """Return the length of a convolution's output along one axis, in pixels."""
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


class WideDepthwise(nn.Module):
    """The function of a convolution whose groups each turn one channel into `m`.

    Libraries have fast kernels for one output per channel only (oneDNN needs a third of the time there). So the input
    is repeated `m` times, convolved one to one, and the outputs are put back in the order they had.

    Args:
        conv: a convolution with as many groups as input channels, and `m` times as many output channels.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        channels, out = conv.in_channels, conv.out_channels
        self.multiplier = out // channels
        self.conv = nn.Conv2d(
            out,
            out,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            groups=out,
            bias=conv.bias is not None,
        ).to(conv.weight)
        order = torch.arange(out).reshape(channels, self.multiplier).T.flatten()
        self.conv.load_state_dict({name: tensor[order] for name, tensor in conv.state_dict().items()})
        self.eval()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b mc h2 w2"]:
        repeated = torch.cat([x] * self.multiplier, dim=1)
        return nn.functional.channel_shuffle(self.conv(repeated), self.multiplier)


class PointwiseLinear(nn.Linear):
    """The function of a 1x1 convolution, computed as a linear layer over the channels of each position.

    oneDNN rearranges a convolution's weights at every call. Where they outnumber the map's values (MobileCLIP2-S4 has
    2048 -> 8192 channels on 4x4 positions) that takes several times longer than the product; a linear layer's weights
    are read as they lie. On a channels-last map both permutations are views.

    Args:
        conv: a 1x1 convolution of stride 1, without groups or padding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
        self.to(conv.weight)
        self.load_state_dict(
            {name: tensor.flatten(1) if tensor.dim() > 1 else tensor for name, tensor in conv.state_dict().items()}
        )
        self.eval()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def optimize_for_cpu(model: Module) -> Module:
    """A new model in eval mode that computes the same function faster on CPUs; for GPUs and exports it is no gain.

    Depthwise convolutions with several outputs per channel become `WideDepthwise`, 1x1 convolutions with many weights
    `PointwiseLinear`, and the others hold their weights channels-last; so do the feature maps after the first of them,
    which makes 1x1 convolutions plain matrix products. `mcliplib benchmark latency --tune` finds what is faster still
    on a machine: bfloat16, and `torch.compile` with frozen weights.

    Args:
        model: a folded model (`reparameterize`), tower or block; it is untouched.
    """
    forms = {id(part): form for part in model.modules() if (form := _form_for_cpu(part)) is not None}
    quick = copy.deepcopy(model, forms).eval()  # with these in the layers' places: no layer is copied first
    quick.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return quick


def is_for_cpu(model: nn.Module) -> bool:
    """Whether a model holds layers that only `optimize_for_cpu` makes."""
    return any(isinstance(part, WideDepthwise | PointwiseLinear) for part in model.modules())


def _form_for_cpu(part: nn.Module) -> nn.Module | None:
    if not isinstance(part, nn.Conv2d):
        return None
    if part.groups == part.in_channels < part.out_channels:
        return WideDepthwise(part)
    return PointwiseLinear(part) if is_pointwise(part) and part.weight.numel() >= WIDE else None


def is_pointwise(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution that sees each position by itself, and has a form as `PointwiseLinear`."""
    if not isinstance(conv, nn.Conv2d):
        return False
    return conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1


def attention_in_steps(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool, seen: Tensor | None
) -> Float[Tensor, "b h m d"]:
    """The same as products and a softmax: on CPUs, PyTorch's one kernel has a bf16 backward several times slower."""
    if causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    dtype = q.dtype
    with torch.autocast("cpu", enabled=False):
        if k.shape[2] < _SHORT:
            q, k, v = q.float(), k.float(), v.float()
        products = scale * q @ k.transpose(2, 3)
        if seen is not None:
            products = products.masked_fill(~seen, float("-inf"))
        return (products.softmax(dim=3, dtype=torch.float32).to(v.dtype) @ v).to(dtype)
