"""The MobileOne block (2206.04040): parallel linear branches in training, one convolution at inference."""

import copy

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.conv_bn import ConvBN
from mcliplib.layers.fold import Affine, as_conv, identity_kernel, pad_kernel, require_eval, then_batch_norm
from mcliplib.layers.squeeze_excite import SqueezeExcite


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
