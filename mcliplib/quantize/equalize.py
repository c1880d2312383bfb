"""Equalization, which makes a folded tower easier to quantize and changes nothing it computes; and a bias correction.

Cross-layer equalization and bias correction of Data-Free Quantization (Nagel et al., 1906.04721), on the pairs of
layers of a folded MobileCLIP between which everything is linear (or ReLU): depthwise convolution and the 1x1 after it,
reduce and expand of a squeeze-excite, values and projection of an attention. Across a GELU there is no such scale.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers import SelfAttention, SqueezeExcite

MOST = 8.0  # factor of a channel, up or down
LEVELS = 127
_ENOUGH = 64  # inputs, to know the activations between
Layer = nn.Conv2d | nn.Linear


class Pair(NamedTuple):
    """Two layers with channels between them that may be scaled.

    Attributes:
        first: its last rows make the channels (an attention's values are the last third of `qkv`).
        second: takes them.
    """

    first: Layer
    second: Layer


def pairs(folded: nn.Module) -> Iterator[Pair]:
    """All such pairs of a folded tower."""
    for part in folded.modules():
        if isinstance(part, SqueezeExcite):
            yield Pair(part.reduce, part.expand)
        elif isinstance(part, SelfAttention):
            yield Pair(part.qkv, part.proj)
        elif isinstance(part, nn.Sequential) and {"conv", "fc1"} <= set(part._modules):
            yield Pair(part.conv, part.fc1)  # type: ignore[arg-type]


@torch.no_grad()
def equalize(folded: nn.Module, inputs: Float[Tensor, "n ..."]) -> int:
    """Scale the channels between each pair, in place, so that both sides' weights have like ranges.

    For channel i with ranges r1 and r2 of the weights before and after it, the first layer's row is divided and
    the second one's column multiplied by s = sqrt(r1 / r2) (equation 11), at most by `MOST`. A pair stays as it was
    where the activations between, measured on the inputs, would carry more rounding noise into the second layer
    afterwards: ``max(abs(x))`` times the norm of W (Frobenius), because a tensor of activations has a single step.

    Args:
        folded: a tower or block in its plain form.
        inputs: its inputs, of which the first 64 are enough.

    Returns:
        How many pairs were scaled.
    """
    found = list(pairs(folded))
    ranges = _input_ranges(folded, [pair.second for pair in found], inputs[:_ENOUGH])
    return sum(_equalized(pair, ranges[id(pair.second)]) for pair in found if id(pair.second) in ranges)


def _equalized(pair: Pair, activations: Float[Tensor, " c"]) -> bool:
    first, second = pair
    rows = slice(first.weight.shape[0] - len(activations), None)
    before = first.weight[rows].flatten(1).abs().amax(dim=1)
    after = second.weight.flatten(2).abs().amax(dim=(0, 2)) if second.weight.dim() > 2 else second.weight.abs().amax(0)
    usable = (before > 0) & (after > 0)
    scale = torch.where(usable, (before / after.clamp(min=1e-12)).sqrt(), 1.0)
    scale = (scale / scale.log().mean().exp()).clamp(1 / MOST, MOST)  # ranges, not the overall size, are evened out
    columns = second.weight.transpose(0, 1).flatten(1).norm(dim=1)
    if (activations / scale).amax() * (columns * scale).norm() >= activations.amax() * columns.norm():
        return False
    first.weight[rows] /= scale.reshape(-1, *[1] * (first.weight.dim() - 1))
    if first.bias is not None:
        first.bias[rows] /= scale
    second.weight *= scale.reshape(1, -1, *[1] * (second.weight.dim() - 2))
    return True


def _input_ranges(module: nn.Module, layers: list[Layer], inputs: Tensor) -> dict[int, Tensor]:
    """The largest magnitude of each input channel of layers, by id."""
    ranges: dict[int, Tensor] = {}

    def note(layer: Layer, given: tuple[Tensor, ...]) -> None:
        ranges[id(layer)] = _by_channel(layer, given[0]).abs().amax(dim=1)

    _observe(module, layers, inputs, note)
    return ranges


@torch.no_grad()
def correct_bias(folded: nn.Module, inputs: Float[Tensor, "n ..."], layers: list[Layer]) -> None:
    """Take the mean error of rounding weights out of the biases, in place (section 4.2, with measured means).

    With weights W that will be rounded to W' per output channel, the output's mean moves by (W' - W) E[x]; the bias
    is shifted by the opposite.

    Args:
        folded: a tower or block in its plain form.
        inputs: a batch of its inputs.
        layers: those of its layers that will be quantized.
    """
    means: dict[int, Tensor] = {}

    def note(layer: Layer, given: tuple[Tensor, ...]) -> None:
        means[id(layer)] = _by_channel(layer, given[0]).mean(dim=1)

    _observe(folded, layers, inputs, note)
    for layer in layers:
        if layer.bias is None or id(layer) not in means:
            continue
        error = rounded(layer.weight) - layer.weight
        error = error.flatten(2).sum(dim=2) if error.dim() > 2 else error  # [out, in of the group]
        groups = getattr(layer, "groups", 1)
        by_group = means[id(layer)].reshape(groups, -1).repeat_interleave(len(error) // groups, dim=0)
        layer.bias -= (error * by_group).sum(dim=1)


def rounded(weight: Float[Tensor, "out ..."]) -> Float[Tensor, "out ..."]:
    """Weights as int8 with a symmetric step per output channel holds them."""
    step = weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12).reshape(-1, *[1] * (weight.dim() - 1)) / LEVELS
    return (weight / step).round() * step


def _by_channel(layer: Layer, x: Tensor) -> Float[Tensor, "c n"]:
    return x.transpose(0, 1).flatten(1) if isinstance(layer, nn.Conv2d) else x.reshape(-1, x.shape[-1]).T


def _observe(
    module: nn.Module, layers: list[Layer], inputs: Tensor, note: Callable[[Any, tuple[Tensor, ...]], None]
) -> None:
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        module(inputs)
    finally:
        for handle in handles:
            handle.remove()
