"""What stands around a block's body: the residual sum and the learned per-channel layer scale (2103.17239)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LayerScale(nn.Module):
    """x times a learned scale per channel, on channel-first maps [B, C, H, W].

    Starts small (1e-5 in MobileCLIP), so that a deep stack begins as the identity.
    """

    def __init__(self, channels: int, init: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.gamma[:, None, None]


class Residual(nn.Module):
    """x + body(x): the plain form of a folded block."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
