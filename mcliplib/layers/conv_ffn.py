"""ConvFFN (FastViT, section 3.2.3): a feed-forward network that first looks at its neighbours."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.conv_bn import ConvBN
from mcliplib.layers.fold import affine, as_conv, require_eval
from mcliplib.layers.residual import LayerScale


class ConvFFN(nn.Module):
    """Depthwise convolution + BN, 1x1 expansion, GELU, 1x1 projection; no residual inside.

    Args:
        channels: channels in and out.
        hidden: width after the expansion.
        kernel_size: of the depthwise convolution: (7, 7) over images, (1, 11) along tokens.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = ConvBN(channels, channels, kernel_size, groups=channels)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.pointwise(self.conv(x))

    def pointwise(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """What follows the convolution: each position by itself."""
        return self.fc2(self.act(self.fc1(x)))

    def fuse(self, layer_scale: LayerScale | None = None) -> nn.Sequential:
        """Convolution (BN folded in), fc1, GELU, fc2 (a following layer scale folded in)."""
        require_eval(self)
        last = affine(self.fc2)
        if layer_scale is not None:
            last = last.scaled(layer_scale.gamma)
        fc1, fc2 = as_conv(affine(self.fc1), like=self.fc1), as_conv(last, like=self.fc2)
        return nn.Sequential(OrderedDict(conv=self.conv.fuse(), fc1=fc1, act=nn.GELU(), fc2=fc2)).eval()
