"""Weights at a byte each, for small files: matrices in int8 with one step for each row, the rest in float16."""

from collections.abc import Mapping

import torch
from torch import Tensor

_LEVELS = 127
_STEP = ".step"


def to_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a file.

    Args:
        tensors: floating-point weights by name.

    Returns:
        `NAME` int8 and `NAME.step` float32 for what has rows, `NAME` float16 for vectors and scalars.
    """
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.dim() < 2:
            stored[name] = value.half()
            continue
        rows = value.float().flatten(1)
        step = (rows.abs().amax(dim=1) / _LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
        levels = (rows / step[:, None]).round().clamp(-_LEVELS, _LEVELS)
        stored[name], stored[name + _STEP] = levels.to(torch.int8).view_as(value), step
    return stored


def from_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors of `to_int8`, within half a step.

    Raises:
        ValueError: an int8 tensor without one step for each of its rows.
    """
    tensors = {}
    for name, value in stored.items():
        if value.dtype != torch.int8:
            if not (name.endswith(_STEP) and name.removesuffix(_STEP) in stored):
                tensors[name] = value.float()
            continue
        step = stored.get(name + _STEP)
        if step is None or step.shape != value.shape[:1]:
            raise ValueError(f"{name} is int8 and has no step for each row")
        tensors[name] = value.float() * step.view(-1, *[1] * (value.dim() - 1))
    return tensors
