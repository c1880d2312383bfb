"""Parts that all teachers share: encoding in batches, and a hash of the weights."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor, nn

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


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, in the order of their names."""
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
