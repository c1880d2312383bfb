"""ViT (2010.11929): the image tower of MobileCLIP-B, whose patches come from convolutions, and of MobileCLIP2-L-14.

pixels [B, 3, H, W]
  patches                          [B, rows x columns, C]
  + learned positions, class token [B, 1 + rows x columns, C]
  transformer layers
  class token, LayerNorm, projection -> features [B, embed_dim]
"""

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers import ConvBN, NormProjection, TransformerLayer


@dataclass(frozen=True)
class ViTConfig:
    """The image tower's settings.

    Attributes:
        width: channels of a token, a multiple of 64 (the attention's head width).
        layers: transformer layers.
        patch_size: height and width of a patch in pixels.
        grid: rows (and columns) of patches that the positions were learned on; other sizes interpolate them.
        conv_stem: three convolutions make the patches (MobileCLIP-B). Otherwise it is CLIP's own ViT: one linear map
            makes them, the class token has a position too, and a LayerNorm comes before the first layer.
        image_size: height and width in pixels the preprocessing makes, a multiple of `patch_size`.
        mlp_ratio: hidden width of the feed-forward networks over `width`.
        head_dim: width of an attention head.
        norm_eps: what LayerNorm adds to the variance.
        stem_padding: zeros around the picture before the first convolution of a `conv_stem`. The released MobileCLIP-B
            has 1 (and a `norm_eps` of 1e-5); timm, whose tower MobileCLIP2-B was trained in, has 0 (and 1e-6).
        proj_bias: whether the last projection has a bias.
    """

    width: int
    layers: int
    patch_size: int
    grid: int
    conv_stem: bool
    image_size: int = 224
    mlp_ratio: float = 4.0
    head_dim: int = 64
    norm_eps: float = 1e-5
    stem_padding: int = 0
    proj_bias: bool = False


def released_stem(config: ViTConfig) -> ViTConfig:
    """MobileCLIP-B as the paper's code computes it."""
    return replace(config, stem_padding=1, norm_eps=1e-5) if config.conv_stem else config


def timm_stem(config: ViTConfig) -> ViTConfig:
    """MobileCLIP-B as timm's `vit_base_mci_224` computes it, and with it open_clip."""
    return replace(config, stem_padding=0, norm_eps=1e-6) if config.conv_stem else config


class ViT(nn.Module):
    """Pixels to image features.

    Args:
        config: widths, depths and the rest.
        embed_dim: width of the features shared with the text tower.
    """

    def __init__(self, config: ViTConfig, embed_dim: int) -> None:
        super().__init__()
        width = config.width
        self.patch_size = config.patch_size
        self.class_has_position = not config.conv_stem
        self.stem = _conv_stem(config) if config.conv_stem else _linear_stem(config)
        self.class_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.empty(config.grid**2 + int(self.class_has_position), width))
        self.norm_pre = None if config.conv_stem else nn.LayerNorm(width, eps=config.norm_eps)
        layers = (
            TransformerLayer(width, head_dim=config.head_dim, mlp_ratio=config.mlp_ratio, norm_eps=config.norm_eps)
            for _ in range(config.layers)
        )
        self.layers = nn.Sequential(*layers)
        self.head = NormProjection(width, embed_dim, bias=config.proj_bias, norm_eps=config.norm_eps)
        self.apply(_init_linear)
        nn.init.normal_(self.class_token, std=1e-6)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b embed"]:
        if pixels.shape[2] % self.patch_size or pixels.shape[3] % self.patch_size:
            raise ValueError(f"height and width must be multiples of {self.patch_size}, got {list(pixels.shape[2:])}")
        x = self._tokens(self.stem(pixels))
        *before, last = self.layers
        for layer in before:
            x = layer(x)
        class_token = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        return self.head(last.forward_at(x, class_token))  # type: ignore[operator]

    def take_stem_of(self, config: ViTConfig) -> None:
        """Compute with another configuration's `stem_padding` and `norm_eps`; the weights stay."""
        if config.conv_stem:
            first = cast(ConvBN, self.stem[0])
            first.conv.padding = (config.stem_padding, config.stem_padding)
        for part in self.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = config.norm_eps

    def _tokens(self, patches: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b n c"]:
        """The class token, then the patches row by row, with their positions."""
        grid_positions = self.positions[int(self.class_has_position) :]
        x = patches.flatten(2).transpose(1, 2) + _resized(grid_positions, patches.shape[2], patches.shape[3])
        class_token = self.class_token + self.positions[0] if self.class_has_position else self.class_token
        x = torch.cat([class_token.expand(x.shape[0], 1, -1).to(x.dtype), x], dim=1)
        return x if self.norm_pre is None else self.norm_pre(x)


def _conv_stem(config: ViTConfig) -> nn.Sequential:
    """Three convolutions whose kernels do not overlap, the last one a plain linear map: 16 = 4 * 2 * 2."""
    narrow, first = config.width // 4, config.patch_size // 4
    return nn.Sequential(
        ConvBN(3, narrow, (first, first), stride=first, padding=config.stem_padding),
        nn.GELU(),
        ConvBN(narrow, narrow, (2, 2), stride=2, padding=0),
        nn.GELU(),
        nn.Conv2d(narrow, config.width, 2, stride=2),
    )


def _linear_stem(config: ViTConfig) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False))


def _resized(positions: Float[Tensor, "n c"], rows: int, columns: int) -> Float[Tensor, "n2 c"]:
    """Positions learned on a square grid, interpolated to another one."""
    side = math.isqrt(positions.shape[0])
    if (rows, columns) == (side, side):
        return positions
    grid = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid.float(), (rows, columns), mode="bicubic", antialias=True)
    return resized.flatten(2)[0].T.to(positions.dtype)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
