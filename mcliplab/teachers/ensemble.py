"""Several teachers as one encoder: their features side by side, so that a similarity is the mean of theirs."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from mcliplib.evaluate.features import Encoder


class Ensemble:
    """An `mcliplib.evaluate` encoder of several.

    Args:
        members: teachers; each one's features are normalised before they are joined, as in DataCompDR (2311.17049).
    """

    def __init__(self, members: Sequence[Encoder]) -> None:
        self.members = list(members)

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """[N, sum of the members' widths], of norm 1."""
        return joined([member.encode_images(images) for member in self.members])

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """[M, sum of the members' widths], of norm 1."""
        return joined([member.encode_texts(texts) for member in self.members])


def joined(features: Sequence[Tensor]) -> Tensor:
    """Normalised features side by side, normalised again: dot products are the mean of the members'."""
    parts = [nn.functional.normalize(part, dim=-1) for part in features]
    return torch.cat(parts, dim=-1) / len(parts) ** 0.5
