"""ConSE (Norouzi et al., 1312.5650): a picture is the mean of its likely classes' names, in a text model's space."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch import Tensor, nn

from mcliplib.reinforce.teachers.efficientnet import FEATURES, LiteTower
from mcliplib.reinforce.teachers.minilm import WIDTH, MiniLM

IMAGE_WIDTH = FEATURES + WIDTH  # of what `LiteFeatures` returns
_TOP = 20  # classes that have a say


class Frozen(NamedTuple):
    """What is known about pictures without training."""

    features: Float[Tensor, "n 1664"]  # 1,280 of the CNN, pooled, and 384 of ConSE, normalised
    confidence: Float[Tensor, "n 1"]  # probability of the likeliest class; high for what ImageNet's photographs show


class LiteFeatures(nn.Module):
    """Everything frozen about a picture: the CNN's pooled features, and its ConSE embedding.

    Args:
        variant: "lite0" or "lite2".
        text: of which the class names' embeddings are taken.
    """

    def __init__(self, variant: str, text: MiniLM) -> None:
        super().__init__()
        self.tower = LiteTower(variant)
        self.register_buffer("class_names", text(list(IMAGENET_CLASSNAMES)).clone())

    @torch.inference_mode()
    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Frozen:
        """Of pixels in [0, 1]."""
        pooled, logits = self.tower(pixels)
        features = torch.cat([pooled, conse(logits, self.get_buffer("class_names"))], dim=-1)
        return Frozen(features, logits.softmax(dim=-1).amax(dim=-1, keepdim=True))


def conse(
    logits: Float[Tensor, "n classes"], class_names: Float[Tensor, "classes d"], top: int = _TOP
) -> Float[Tensor, "n d"]:
    """The likeliest classes' name embeddings, weighted with their probabilities; normalised."""
    probabilities, index = logits.softmax(dim=-1).topk(top, dim=-1)
    return nn.functional.normalize((probabilities[..., None] * class_names[index]).sum(dim=1), dim=-1)
