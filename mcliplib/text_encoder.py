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
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mcliplib.layers import NormProjection, RepMixerBlock, Residual, TransformerLayer
from mcliplib.layers.attention import token_at

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
        return _as_tokens(self.block(_as_map(x)))

    def forward_at(self, x: Float[Tensor, "b t c"], at: Int[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """Return the output at token `at` of each sample; the channels of the other tokens are not mixed."""
        mixed = self.block.token_mixer(_as_map(x))
        ffn = self.block.conv_ffn
        near = ffn.conv(mixed)
        mixed, near = (token_at(_as_tokens(y), at)[:, :, None, None] for y in (mixed, near))
        return (mixed + self.block.layer_scale(ffn.pointwise(near)))[:, :, 0, 0]

    def fuse(self) -> "FoldedTokenRepMixer":
        """The same layer with its block folded."""
        folded = self.block.fuse()
        conv, *pointwise = cast(nn.Sequential, cast(Residual, folded.conv_ffn).body)
        return FoldedTokenRepMixer(cast(nn.Module, folded.token_mixer), conv, nn.Sequential(*pointwise))


class FoldedTokenRepMixer(nn.Module):
    """The plain form of a TokenRepMixer: y = token_mixer(x), then y + pointwise(conv(y)).

    Args:
        token_mixer: depthwise convolution.
        conv: the ConvFFN's depthwise convolution.
        pointwise: the rest of the ConvFFN.
    """

    def __init__(self, token_mixer: nn.Module, conv: nn.Module, pointwise: nn.Module) -> None:
        super().__init__()
        self.token_mixer, self.conv, self.pointwise = token_mixer, conv, pointwise
        self.eval()

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        mixed = self.token_mixer(_as_map(x))
        return _as_tokens(mixed + self.pointwise(self.conv(mixed)))

    def forward_at(self, x: Float[Tensor, "b t c"], at: Int[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """Return the output at one token of each sample, as `TokenRepMixer.forward_at` does."""
        mixed = self.token_mixer(_as_map(x))
        near = self.conv(mixed)
        mixed, near = (token_at(_as_tokens(y), at)[:, :, None, None] for y in (mixed, near))
        return (mixed + self.pointwise(near))[:, :, 0, 0]


def _as_map(x: Float[Tensor, "b t c"]) -> Float[Tensor, "b c 1 t"]:
    return x.transpose(1, 2).unsqueeze(2)


def _as_tokens(x: Float[Tensor, "b c 1 t"]) -> Float[Tensor, "b t c"]:
    return x.squeeze(2).transpose(1, 2)


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
        # The end-of-text token has the largest id of the vocabulary, so argmax finds the first one of each text.
        end = tokens.argmax(dim=-1)
        x = self.embedding(self._zero_after(tokens, end)) + self.positions
        *before, last = self.layers
        for layer in before:
            x = layer(x)
        return self.head(last.forward_at(x, end))  # type: ignore[operator]  # only the end's feature is read

    def _zero_after(self, tokens: Int[Tensor, "b t"], end: Int[Tensor, " b"]) -> Int[Tensor, "b t"]:
        """The padding of training, zeros, whatever a tokenizer pads with: Hugging Face's repeats the end-of-text token.

        There is no padding mask, so the padding takes part.
        """
        is_after = torch.arange(tokens.shape[1], device=tokens.device) > end[:, None]
        ends = tokens.amax(dim=-1, keepdim=True) == self.embedding.num_embeddings - 1
        return tokens.masked_fill(torch.logical_and(is_after, ends), 0)

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
