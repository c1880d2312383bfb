"""Squeeze-and-excitation (1709.01507): each channel scaled by a gate computed from the mean of all channels."""

from jaxtyping import Float
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """x * sigmoid(expand(relu(reduce(mean(x))))); not linear, so reparameterization leaves it as it is.

    Args:
        channels: channels in and out.
        reduced: width of the bottleneck.
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        gate = x.mean(dim=(2, 3), keepdim=True)
        return x * self.expand(self.reduce(gate).relu()).sigmoid()
