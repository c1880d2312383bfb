"""Downsampling between stages: a large-kernel reparameterizable convolution, then a 1x1 MobileOne block."""

import copy
from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.conv_bn import ConvBN
from mcliplib.layers.fold import Affine, as_conv, pad_kernel, require_eval
from mcliplib.layers.mobileone import MobileOneBlock
from mcliplib.layers.squeeze_excite import SqueezeExcite


class LargeKernelConv(nn.Module):
    """gelu(se(conv7x7_bn(x) + conv3x3_bn(x))), stride 2, grouped so that each input channel feeds out/in outputs.

    Args:
        in_channels: channels in, also the number of groups.
        out_channels: channels out, a multiple of `in_channels`.
        squeeze_excite: whether a squeeze-excite (reduction 4) comes before the activation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, squeeze_excite: bool) -> None:
        super().__init__()
        self.large = ConvBN(in_channels, out_channels, (7, 7), stride=2, groups=in_channels)
        self.small = ConvBN(in_channels, out_channels, (3, 3), stride=2, groups=in_channels)
        self.se = SqueezeExcite(out_channels, out_channels // 4) if squeeze_excite else None
        self.act = nn.GELU()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        y = self.large(x) + self.small(x)
        return self.act(y if self.se is None else self.se(y))

    def fuse(self) -> nn.Sequential:
        """One 7x7 convolution (the 3x3 sits in its centre), squeeze-excite if any, GELU."""
        require_eval(self)
        kernel, bias = self.small.affine()
        conv = as_conv(self.large.affine() + Affine(pad_kernel(kernel, (7, 7)), bias), like=self.large.conv)
        gate = [] if self.se is None else [copy.deepcopy(self.se)]
        return nn.Sequential(conv, *gate, nn.GELU()).eval()


def patch_embed(in_channels: int, out_channels: int, *, squeeze_excite: bool) -> nn.Sequential:
    """[B, in, H, W] -> [B, out, H/2, W/2]."""
    spatial = LargeKernelConv(in_channels, out_channels, squeeze_excite=squeeze_excite)
    return nn.Sequential(OrderedDict(spatial=spatial, pointwise=MobileOneBlock(out_channels, out_channels, (1, 1))))
