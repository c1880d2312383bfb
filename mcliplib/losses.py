"""Training losses, as pure functions of feature tensors."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def clip_loss(
    f_img: Float[Tensor, "batch dim"], f_txt: Float[Tensor, "batch dim"], logit_scale: Tensor | float
) -> Float[Tensor, ""]:
    """The symmetric contrastive loss of CLIP (2103.00020): each image must find its text among all, and back.

    Args:
        f_img: normalised image features; row i belongs to row i of `f_txt`.
        f_txt: normalised text features.
        logit_scale: inverse temperature that multiplies the cosines.

    Returns:
        The mean of the two cross-entropies, in nats; ln(batch) is chance.
    """
    logits = logit_scale * f_img @ f_txt.T
    target = torch.arange(logits.shape[0], device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
