"""Convolution followed by BatchNorm: the unit that every branch of MobileCLIP is made of."""

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.convolve import convolve
from mcliplib.layers.fold import Affine, affine, as_conv, require_eval, then_batch_norm


class ConvBN(nn.Module):
    """A bias-free convolution, then BatchNorm.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: (height, width).
        stride: the same along both axes.
        groups: `in_channels` for a depthwise convolution.
        padding: zeros on every side; None is half a kernel, so that at stride 1 an odd kernel keeps the size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        zeros = (kernel_size[0] // 2, kernel_size[1] // 2) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=zeros, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        return self.bn(convolve(self.conv, x))

    def affine(self) -> Affine:
        """The one kernel and bias that this is in eval mode."""
        require_eval(self)
        return then_batch_norm(affine(self.conv), self.bn)

    def fuse(self) -> nn.Conv2d:
        """One convolution with bias, equal in eval mode."""
        return as_conv(self.affine(), like=self.conv)
