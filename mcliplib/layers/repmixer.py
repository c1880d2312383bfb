"""Token mixing without attention: RepMixer and ConvFFN, the block of both (FastViT, 2303.14189), and RepCPE.

Around a block's body stand the residual sum and the learned per-channel layer scale (2103.17239). RepCPE tells
positions by a convolution (conditional positional encoding, 2102.10882) that folds into one kernel.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib._vision import DropPath
from mcliplib.layers.cpu import convolve
from mcliplib.layers.fold import Affine, affine, as_conv, identity_kernel, require_eval, then_batch_norm
from mcliplib.layers.mobileone import ConvBN, MobileOneBlock


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
        """Apply the two 1x1 convolutions, which see each position by itself."""
        return self.fc2(self.act(self.fc1(x)))

    def fuse(self, layer_scale: LayerScale | None = None) -> nn.Sequential:
        """Convolution (BN folded in), fc1, GELU, fc2 (a following layer scale folded in)."""
        require_eval(self)
        last = affine(self.fc2)
        if layer_scale is not None:
            last = last.scaled(layer_scale.gamma)
        fc1, fc2 = as_conv(affine(self.fc1), like=self.fc1), as_conv(last, like=self.fc2)
        return nn.Sequential(OrderedDict(conv=self.conv.fuse(), fc1=fc1, act=nn.GELU(), fc2=fc2)).eval()


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
