"""Structural reparameterization of a whole model: every block that can `fuse()` is replaced by its plain form."""

import copy
from collections.abc import Iterator
from typing import TypeVar

from torch import nn

from mcliplib.layers.fold import Foldable, require_eval

Module = TypeVar("Module", bound=nn.Module)


def reparameterize(model: Module) -> Module:
    """A new model in eval mode that computes the same function with fewer operations (FastViT, section 3.2).

    Branches, BatchNorms, layer scales, the attention's scale and the LayerNorms' scales and shifts are folded into
    convolutions and linear layers; `model` is untouched. A folded model folds to an equal one.

    What is left are plain layers, for any device and export. To run on a CPU, `optimize_for_cpu` makes them faster.

    Args:
        model: a model (or any tower or block) in eval mode.

    Raises:
        RuntimeError: the model is in train mode, where BatchNorm depends on the batch and nothing can be folded.
    """
    require_eval(model)
    folded = {id(block): block.fuse() for block in _outermost_foldable(model)}
    return copy.deepcopy(model, folded)  # with these in the blocks' places: no block is copied first


def _outermost_foldable(module: nn.Module) -> Iterator[Foldable]:
    if isinstance(module, Foldable):
        yield module
    else:
        for child in module.children():
            yield from _outermost_foldable(child)
