"""Encoding in batches, which all teachers share."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

_BATCH = 32


def in_batches(
    encode: Callable[[Tensor], Tensor],
    images: Sequence[Image.Image],
    preprocess: Callable[[Image.Image], Tensor],
    dim: int,
) -> Tensor:
    """Features [N, dim] of pictures, by a function of pixels [n, 3, size, size]; a batch holds 32."""
    parts = []
    for start in range(0, len(images), _BATCH):
        parts.append(encode(torch.stack([preprocess(image) for image in images[start : start + _BATCH]])))
    return torch.cat(parts) if parts else torch.empty(0, dim)
