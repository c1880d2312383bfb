"""A byte for each number: rows as whole multiples of a step of their own. Weights of shipped models, and embeddings.

In the style of symmetric post-training quantization by channel (Krishnamoorthi, 1806.08342): zero stays zero, and a
row's largest number decides its step.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int8
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

LEVELS = 127  # to either side of zero
STEP = ".step"  # after a tensor's name: the steps of its rows


def quantize_rows(
    rows: Float[np.ndarray, "n d"], levels: int = LEVELS, step_dtype: DTypeLike = np.float32
) -> tuple[Int8[np.ndarray, "n d"], NDArray[np.floating]]:
    """Numbers from -levels to levels, and each row's step, which they are to be multiplied with.

    Args:
        rows: float32, finite.
        levels: at most 127.
        step_dtype: of the steps; numbers are rounded with the step as it is stored.

    Returns:
        Within half a step of the rows, if the steps are float32.
    """
    step = (np.abs(rows).max(axis=1) / levels).astype(step_dtype)
    divisor = np.where(step > 0, step.astype(np.float32), 1.0)  # a row of zeros stays one
    return np.clip(np.round(rows / divisor[:, None]), -levels, levels).astype(np.int8), step


def to_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a file that takes a byte for each.

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
        levels, step = quantize_rows(value.detach().float().flatten(1).numpy())
        stored[name], stored[name + STEP] = torch.from_numpy(levels).view_as(value), torch.from_numpy(step)
    return stored


def from_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors of `to_int8`, within half a step.

    Raises:
        ValueError: an int8 tensor without one step for each of its rows.
    """
    tensors = {}
    for name, value in stored.items():
        if value.dtype != torch.int8:
            if not (name.endswith(STEP) and name.removesuffix(STEP) in stored):
                tensors[name] = value.float()
            continue
        step = stored.get(name + STEP)
        if step is None or step.shape != value.shape[:1]:
            raise ValueError(f"{name} is int8 and has no step for each row")
        tensors[name] = value.float() * step.view(-1, *[1] * (value.dim() - 1))
    return tensors
