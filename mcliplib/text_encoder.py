"""The text towers: CLIP's transformer (Base), and MCt, which begins and ends with RepMixer blocks along the tokens.

    tokens [B, T]
      embedding + learned positions            [B, T, C]
      RepMixer block (1x11 convolutions)       tokens seen as an image of height 1
      transformer layers
      RepMixer block
      end-of-text token, LayerNorm, projection -> features [B, embed_dim]

Base is the same without RepMixer blocks. MCt is not causal and has no padding mask: the padding
tokens take part, so the context length is part of the function.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mcliplib.layers import NormProjection, RepMixerBlock, TransformerLayer

KERNEL = (1, 11)


@dataclass(frozen=True)
class TextConfig:
    """The text tower's settings.

    Attributes:
        width: channels of a token; a multiple of 64 (the attention's head width) or of `head_dim`.
        layers: transformer layers.
        repmixers: RepMixer blocks at either end: 1 for MCt, 0 for Base.
        context_length: tokens per text, start and end included.
        vocab_size: rows of the embedding.
        head_dim: width of an attention head.
        mlp_ratio: hidden width of the feed-forward networks over `width`.
        causal: whether a token sees only itself and earlier tokens (MobileCLIP-B).
        layer_scale: initial value of the RepMixer blocks' layer scales.
    """

    width: int = 512
    layers: int = 4
    repmixers: int = 1
    context_length: int = 77
    vocab_size: int = 49408
    head_dim: int = 64
    mlp_ratio: float = 4.0
    causal: bool = False
    layer_scale: float = 1e-5


class TokenRepMixer(nn.Module):
    """A RepMixer block over tokens [B, T, C], seen as a feature map [B, C, 1, T]."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.block = RepMixerBlock(
            config.width,
            mixer_kernel=KERNEL,
            ffn_kernel=KERNEL,
            mlp_ratio=config.mlp_ratio,
            scale_branch=False,
            layer_scale=config.layer_scale,
        )

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        return self.block(x.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)


class TextEncoder(nn.Module):
    """Tokens to text features.

    Args:
        config: widths, depths and the rest.
        embed_dim: width of the features shared with the image tower.
    """

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(config.context_length, config.width))
        middle = [
            TransformerLayer(config.width, head_dim=config.head_dim, mlp_ratio=config.mlp_ratio, causal=config.causal)
            for _ in range(config.layers)
        ]
        first, last = ([TokenRepMixer(config) for _ in range(config.repmixers)] for _ in range(2))
        self.layers = nn.Sequential(*first, *middle, *last)
        self.head = NormProjection(config.width, embed_dim)
        self._init_weights(config)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b embed"]:
        x = self.layers(self.embedding(tokens) + self.positions)
        # The end-of-text token has the largest id of the vocabulary, so argmax finds it.
        return self.head(x[torch.arange(x.shape[0], device=x.device), tokens.argmax(dim=-1)])

    def _init_weights(self, config: TextConfig) -> None:
        """As CLIP does (2103.00020): standard deviations that keep the residual stream's size level."""
        std = config.width**-0.5
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.01)
        nn.init.normal_(self.head.proj.weight, std=std)
        for layer in self.layers:
            if isinstance(layer, TransformerLayer):
                depth_std = std * (2 * config.layers) ** -0.5
                nn.init.normal_(layer.attention.qkv.weight, std=std)
                nn.init.normal_(layer.attention.proj.weight, std=depth_std)
                nn.init.normal_(layer.fc1.weight, std=(2 * config.width) ** -0.5)
                nn.init.normal_(layer.fc2.weight, std=depth_std)
