"""Convolution followed by BatchNorm: the unit that every branch of MobileCLIP is made of."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.fold import Affine, affine, as_conv, require_eval, then_batch_norm


class ConvBN(nn.Module):
    """A bias-free convolution, then BatchNorm.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: (height, width).
        stride: the same along both axes.
        groups: `in_channels` for a depthwise convolution.
        padded: with half a kernel of zeros on every side, so that at stride 1 an odd kernel keeps the size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        padded: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel_size[0] // 2, kernel_size[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        if self.training and self.conv.groups > 1 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # On CPUs the bf16 backward of a depthwise convolution is up to ten times slower than the fp32 one.
            with torch.autocast("cpu", enabled=False):
                return self.bn(self.conv(x.float()))
        if self.conv.kernel_size == (1, 1) and self.conv.stride != (1, 1) and self.conv.groups == 1:
            # The same function. On CPUs, the fp32 channels-last backward of a strided 1x1 convolution with few input
            # channels writes outside of its memory (oneDNN, issue 6035).
            return self.bn(nn.functional.conv2d(_every(self.conv.stride, x), self.conv.weight))
        return self.bn(self.conv(x))

    def affine(self) -> Affine:
        """The one kernel and bias that this is in eval mode."""
        require_eval(self)
        return then_batch_norm(affine(self.conv), self.bn)

    def fuse(self) -> nn.Conv2d:
        """One convolution with bias, equal in eval mode."""
        return as_conv(self.affine(), like=self.conv)


def _every(stride: tuple[int, ...], x: Tensor) -> Tensor:
    """The pixels that a strided 1x1 kernel sees, in the layout of x."""
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return x[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=layout)
