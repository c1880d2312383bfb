"""Structural reparameterization of a whole model: every block that can `fuse()` is replaced by its plain form."""

import copy
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import nn

from mcliplib.layers.depthwise import widen_depthwise
from mcliplib.layers.fold import Foldable, require_eval
from mcliplib.layers.pointwise import linearize_wide_pointwise

Module = TypeVar("Module", bound=nn.Module)


def reparameterize(model: Module) -> Module:
    """A new model in eval mode that computes the same function with fewer operations (FastViT, section 3.2).

    Branches, BatchNorms, layer scales, the attention's scale and the LayerNorms' scales and shifts are folded into
    convolutions and linear layers; `model` is untouched. A folded model folds to an equal one.

    The folded convolutions hold their weights channels-last, and so do the feature maps after the first of them: 1x1
    convolutions are then plain matrix products. Depthwise convolutions with several outputs per channel are laid out
    as `WideDepthwise`, 1x1 convolutions with many weights as `PointwiseLinear`. `mcliplib benchmark latency --tune`
    finds what is faster still on a machine: bfloat16, and `torch.compile` with frozen weights.

    Args:
        model: a model (or any tower or block) in eval mode.

    Raises:
        RuntimeError: the model is in train mode, where BatchNorm depends on the batch and nothing can be folded.
    """
    require_eval(model)
    folded = {id(block): block.fuse() for block in _outermost_foldable(model)}
    holder = nn.Sequential(copy.deepcopy(model, folded))  # with these in the blocks' places: no block is copied first
    widen_depthwise(holder)
    linearize_wide_pointwise(holder)
    holder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(Module, holder[0])


def _outermost_foldable(module: nn.Module) -> Iterator[Foldable]:
    if isinstance(module, Foldable):
        yield module
    else:
        for child in module.children():
            yield from _outermost_foldable(child)
