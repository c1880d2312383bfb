"""The convolutions of MobileCLIP: branches in training, one convolution at inference (MobileOne, 2206.04040).

First a convolution with BatchNorm, the unit that every branch is made of, and squeeze-and-excitation (1709.01507); then
the MobileOne block, and the downsampling between stages by a large kernel and a 1x1 block.
"""

import copy
from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.cpu import convolve
from mcliplib.layers.fold import Affine, affine, as_conv, identity_kernel, pad_kernel, require_eval, then_batch_norm


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


class MobileOneBlock(nn.Module):
    """act(se(conv_bn(x) + scale(x) + skip(x))).

    The `scale` branch (1x1 convolution + BN) exists where the kernel is larger than 1, the `skip` branch (BN alone)
    where input and output have the same shape.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: (height, width), odd.
        stride: the same along both axes.
        groups: `in_channels` for a depthwise block.
        scale_branch: whether a kernel larger than 1 gets a scale branch (the text tower's mixer has none).
        squeeze_excite: width of the squeeze-and-excite bottleneck, 0 for none.
        activation: whether GELU follows (a RepMixer's mixer has none).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        scale_branch: bool = True,
        squeeze_excite: int = 0,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = ConvBN(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
        has_scale = scale_branch and max(kernel_size) > 1
        self.scale = ConvBN(in_channels, out_channels, (1, 1), stride=stride, groups=groups) if has_scale else None
        self.skip = nn.BatchNorm2d(in_channels) if in_channels == out_channels and stride == 1 else None
        self.se = SqueezeExcite(out_channels, squeeze_excite) if squeeze_excite else None
        self.act = nn.GELU() if activation else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        y = self.conv(x)
        if self.scale is not None:
            y = y + self.scale(x)
        if self.skip is not None:
            y = y + self.skip(x)
        if self.se is not None:
            y = self.se(y)
        return y if self.act is None else self.act(y)

    def affine(self) -> Affine:
        """The branches summed into one kernel and bias (without squeeze-excite and activation)."""
        require_eval(self)
        total = self.conv.affine()
        size = (total.kernel.shape[2], total.kernel.shape[3])
        if self.scale is not None:
            kernel, bias = self.scale.affine()
            total = total + Affine(pad_kernel(kernel, size), bias)
        if self.skip is not None:
            conv = self.conv.conv
            identity = identity_kernel(conv.in_channels, conv.groups, size, like=total.kernel)
            total = total + then_batch_norm(Affine(identity, total.bias.new_zeros(total.bias.shape)), self.skip)
        return total

    def fuse(self) -> nn.Module:
        """A convolution, followed by the squeeze-excite and the activation where the block has them."""
        conv = as_conv(self.affine(), like=self.conv.conv)
        rest = [copy.deepcopy(module) for module in (self.se, self.act) if module is not None]
        return nn.Sequential(conv, *rest).eval() if rest else conv


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
