"""The blocks that both towers are built of, one idea a file; each knows how to `fuse()` itself."""

from mcliplib.layers.attention import AttentionBlock, ChannelLayerNorm, SelfAttention, SpatialAttention
from mcliplib.layers.conv_bn import ConvBN
from mcliplib.layers.conv_ffn import ConvFFN
from mcliplib.layers.head import NormProjection
from mcliplib.layers.mobileone import MobileOneBlock
from mcliplib.layers.patch_embed import LargeKernelConv, patch_embed
from mcliplib.layers.positional import RepCPE
from mcliplib.layers.repmixer import RepMixer, RepMixerBlock
from mcliplib.layers.residual import LayerScale, Residual
from mcliplib.layers.squeeze_excite import SqueezeExcite
from mcliplib.layers.transformer import TransformerLayer

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
