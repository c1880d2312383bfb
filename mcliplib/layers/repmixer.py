"""RepMixer (FastViT, section 3.2.1): token mixing without attention, one depthwise convolution at inference."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib._vision import DropPath
from mcliplib.layers.conv_ffn import ConvFFN
from mcliplib.layers.fold import Affine, as_conv, identity_kernel, require_eval, then_batch_norm
from mcliplib.layers.mobileone import MobileOneBlock
from mcliplib.layers.residual import LayerScale, Residual


class RepMixer(nn.Module):
    """x + layer_scale * (mixer(x) - norm(x)); every term is linear.

    Args:
        channels: channels in and out.
        kernel_size: (3, 3) over images, (1, 11) along tokens.
        scale_branch: whether the mixer has MobileOne's 1x1 branch (over images yes, along tokens no).
        layer_scale: initial value of the layer scale.
    """

    def __init__(
        self, channels: int, kernel_size: tuple[int, int], *, scale_branch: bool, layer_scale: float = 1e-5
    ) -> None:
        super().__init__()
        self.mixer = MobileOneBlock(
            channels, channels, kernel_size, groups=channels, scale_branch=scale_branch, activation=False
        )
        self.norm = nn.BatchNorm2d(channels)
        self.layer_scale = LayerScale(channels, layer_scale)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.layer_scale(self.mixer(x) - self.norm(x))

    def fuse(self) -> nn.Conv2d:
        """One depthwise convolution: identity + layer_scale * (mixer - norm)."""
        require_eval(self)
        mixer, conv = self.mixer.affine(), self.mixer.conv.conv
        size = (mixer.kernel.shape[2], mixer.kernel.shape[3])
        identity = identity_kernel(conv.in_channels, conv.groups, size, like=mixer.kernel)
        unchanged = Affine(identity, mixer.bias.new_zeros(mixer.bias.shape))
        gamma = self.layer_scale.gamma
        return as_conv(unchanged + mixer.scaled(gamma) + then_batch_norm(unchanged, self.norm).scaled(-gamma), conv)


class RepMixerBlock(nn.Module):
    """RepMixer, then x + layer_scale * ConvFFN(x): the block of stages 1-3 and of the two ends of MCt.

    Args:
        channels: channels in and out.
        mixer_kernel: kernel of the RepMixer.
        ffn_kernel: kernel of the ConvFFN's depthwise convolution.
        mlp_ratio: ConvFFN's hidden width over `channels`.
        scale_branch: see RepMixer.
        drop_path: probability of dropping the ConvFFN branch of a sample in training.
        layer_scale: initial value of both layer scales.
    """

    def __init__(
        self,
        channels: int,
        *,
        mixer_kernel: tuple[int, int],
        ffn_kernel: tuple[int, int],
        mlp_ratio: float,
        scale_branch: bool,
        drop_path: float = 0.0,
        layer_scale: float = 1e-5,
    ) -> None:
        super().__init__()
        self.token_mixer = RepMixer(channels, mixer_kernel, scale_branch=scale_branch, layer_scale=layer_scale)
        self.conv_ffn = ConvFFN(channels, int(channels * mlp_ratio), ffn_kernel)
        self.layer_scale = LayerScale(channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = self.token_mixer(x)
        return x + self.drop_path(self.layer_scale(self.conv_ffn(x)))

    def fuse(self) -> nn.Sequential:
        """One depthwise convolution, then a residual of four plain layers."""
        ffn = Residual(self.conv_ffn.fuse(self.layer_scale))
        return nn.Sequential(OrderedDict(token_mixer=self.token_mixer.fuse(), conv_ffn=ffn)).eval()
