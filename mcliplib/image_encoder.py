"""MCi: the hybrid image tower of MobileCLIP, a FastViT (2303.14189) whose last stages are attention.

pixels [B, 3, H, W]
  stem        3 MobileOne blocks, /4
  stages 1-3  RepMixer blocks (convolution only), /4, /8, /16
  stage 4     RepCPE, then attention blocks, /32
  stage 5     the same again, /64 (MobileCLIP2's MCi3 and MCi4 only)
  expand      MobileOne, channels x2, squeeze-excite
  pool + proj -> features [B, embed_dim]
"""

from collections import OrderedDict
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers import AttentionBlock, MobileOneBlock, RepCPE, RepMixerBlock, patch_embed

FFN_KERNEL = (7, 7)
MIXER_KERNEL = (3, 3)
CONVOLUTION_STAGES = 3


@dataclass(frozen=True)
class MCiConfig:
    """The image tower's settings.

    Attributes:
        widths: channels of the stages, four or five; from the fourth on multiples of 32 (the attention's head width).
        depths: blocks in each of the stages.
        image_size: height and width in pixels the preprocessing makes; the tower itself takes any size from 32 up.
        mlp_ratio: ConvFFN's hidden width over the channels.
        drop_path: probability of dropping a branch in the last block; grows linearly from 0 at the first.
        layer_scale: initial value of the layer scales.
        squeeze_excite: whether the downsamplings from the third stage on have a squeeze-excite.
        stem_scale_branch: whether the stem's 3x3 blocks have MobileOne's 1x1 branch.
        layer_norm: whether a LayerNorm comes before attention, in place of a BatchNorm.
        proj_bias: whether the last projection has a bias.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    image_size: int = 256
    mlp_ratio: float = 3.0
    drop_path: float = 0.0
    layer_scale: float = 1e-5
    squeeze_excite: bool = True
    stem_scale_branch: bool = True
    layer_norm: bool = False
    proj_bias: bool = False


class MCi(nn.Module):
    """Pixels to image features.

    Args:
        config: widths, depths and the rest.
        embed_dim: width of the features shared with the text tower.
    """

    def __init__(self, config: MCiConfig, embed_dim: int) -> None:
        super().__init__()
        last = config.widths[-1]
        self.stem = _stem(config)
        self.stages = nn.Sequential(*(_stage(config, index) for index in range(len(config.widths))))
        self.expand = MobileOneBlock(last, 2 * last, (3, 3), groups=last, squeeze_excite=2 * last // 16)
        self.proj = nn.Linear(2 * last, embed_dim, bias=config.proj_bias)
        self.apply(_init_weights)

    def forward_features(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The feature maps after the stem and after each stage, finest first."""
        maps = [self.stem(pixels)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b embed"]:
        x = self.expand(self.stages(self.stem(pixels)))
        return self.proj(x.mean(dim=(2, 3)))


def _stem(config: MCiConfig) -> nn.Sequential:
    """[B, 3, H, W] -> [B, width, H/4, W/4]."""
    width, scale_branch = config.widths[0], config.stem_scale_branch
    return nn.Sequential(
        MobileOneBlock(3, width, (3, 3), stride=2, scale_branch=scale_branch),
        MobileOneBlock(width, width, (3, 3), stride=2, groups=width, scale_branch=scale_branch),
        MobileOneBlock(width, width, (1, 1)),
    )


def _stage(config: MCiConfig, index: int) -> nn.Sequential:
    """Downsampling (all stages but the first), positions (where attention follows), then the stage's blocks."""
    width = config.widths[index]
    layers: list[tuple[str, nn.Module]] = []
    if index > 0:
        squeeze_excite = config.squeeze_excite and index >= 2
        layers.append(("downsample", patch_embed(config.widths[index - 1], width, squeeze_excite=squeeze_excite)))
    if index >= CONVOLUTION_STAGES:
        layers.append(("position", RepCPE(width)))
    layers.append(("blocks", nn.Sequential(*(_block(config, index, block) for block in range(config.depths[index])))))
    return nn.Sequential(OrderedDict(layers))


def _block(config: MCiConfig, stage: int, block: int) -> nn.Module:
    position = sum(config.depths[:stage]) + block
    drop_path = config.drop_path * position / max(1, sum(config.depths) - 1)
    if stage >= CONVOLUTION_STAGES:
        return AttentionBlock(
            config.widths[stage],
            ffn_kernel=FFN_KERNEL,
            mlp_ratio=config.mlp_ratio,
            drop_path=drop_path,
            layer_scale=config.layer_scale,
            layer_norm=config.layer_norm,
        )
    return RepMixerBlock(
        config.widths[stage],
        mixer_kernel=MIXER_KERNEL,
        ffn_kernel=FFN_KERNEL,
        mlp_ratio=config.mlp_ratio,
        scale_branch=True,
        drop_path=drop_path,
        layer_scale=config.layer_scale,
    )


def _init_weights(module: nn.Module) -> None:
    """Linear and 1x1 convolutions small (std 0.02), the rest as PyTorch does."""
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
