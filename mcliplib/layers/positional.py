"""RepCPE: positions told by a convolution (conditional positional encoding, 2102.10882), foldable into one kernel."""

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.convolve import convolve
from mcliplib.layers.fold import Affine, affine, as_conv, identity_kernel, require_eval


class RepCPE(nn.Module):
    """x + depthwise 7x7 convolution of x, before the attention stage.

    Zero padding makes the borders look different: that is what tells the attention where a token stands.
    """

    def __init__(self, channels: int, kernel_size: tuple[int, int] = (7, 7)) -> None:
        super().__init__()
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=padding, groups=channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + convolve(self.conv, x)

    def fuse(self) -> nn.Conv2d:
        """One depthwise convolution: the kernel plus the identity."""
        require_eval(self)
        kernel, bias = affine(self.conv)
        size = (kernel.shape[2], kernel.shape[3])
        identity = identity_kernel(self.conv.in_channels, self.conv.groups, size, like=kernel)
        return as_conv(Affine(kernel + identity, bias), like=self.conv)
