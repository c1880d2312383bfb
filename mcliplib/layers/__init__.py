"""The blocks that both towers are built of, one idea a file; each knows how to `fuse()` itself."""

from mcliplib.layers.attention import (
    AttentionBlock,
    ChannelLayerNorm,
    NormProjection,
    SelfAttention,
    SpatialAttention,
    TransformerLayer,
)
from mcliplib.layers.mobileone import ConvBN, LargeKernelConv, MobileOneBlock, SqueezeExcite, patch_embed
from mcliplib.layers.repmixer import ConvFFN, LayerScale, RepCPE, RepMixer, RepMixerBlock, Residual

__all__ = [
    "AttentionBlock",
    "ChannelLayerNorm",
    "ConvBN",
    "ConvFFN",
    "LargeKernelConv",
    "LayerScale",
    "MobileOneBlock",
    "NormProjection",
    "RepCPE",
    "RepMixer",
    "RepMixerBlock",
    "Residual",
    "SelfAttention",
    "SpatialAttention",
    "SqueezeExcite",
    "TransformerLayer",
    "patch_embed",
]
