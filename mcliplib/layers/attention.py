"""Multi-head self-attention, over the positions of the image tower's last stages and in transformer layers.

Pre-norm transformer layers are the middle of MCt, the whole of the Base text tower and of the ViT image towers. Their
last step is one token's LayerNorm and its projection into the shared space.
"""

import copy
from collections import OrderedDict
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mcliplib._vision import DropPath
from mcliplib.layers.cpu import attention_in_steps
from mcliplib.layers.fold import (
    Affine,
    affine,
    after_batch_norm,
    after_layer_norm,
    as_linear,
    plain_layer_norm,
    require_eval,
)
from mcliplib.layers.repmixer import ConvFFN, LayerScale, Residual

Norm: TypeAlias = nn.BatchNorm2d | nn.LayerNorm


def attend(
    q: Float[Tensor, "b h m d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    *,
    scale: float,
    causal: bool = False,
    seen: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "b h m d"]:
    """Scaled dot-product attention.

    Args:
        q: queries.
        k: keys.
        v: values.
        scale: multiplies the products of queries and keys.
        causal: whether a query sees only itself and earlier keys.
        seen: which keys each query sees, instead of `causal`.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        return attention_in_steps(q, k, v, scale=scale, causal=causal, seen=seen)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, scale=scale)


class SelfAttention(nn.Module):
    """softmax(scale * q k^T) v over tokens, then a projection.

    Args:
        dim: width in and out.
        head_dim: width of a head; `dim` must be a multiple.
        qkv_bias: whether the joint query-key-value projection has a bias.
        causal: whether a token sees only itself and earlier tokens.
    """

    folded = False

    def __init__(self, dim: int, *, head_dim: int, qkv_bias: bool, causal: bool = False) -> None:
        super().__init__()
        self.head_dim, self.causal = head_dim, causal
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        batch, tokens, dim = x.shape
        # [b, n, 3c] -> [3, b, heads, n, head_dim]
        qkv = self.qkv(x).reshape(batch, tokens, 3, dim // self.head_dim, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        out = attend(q, k, v, scale=self.scale, causal=self.causal)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))

    def forward_at(self, x: Float[Tensor, "b n c"], at: Int[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """The output at one token of each sample, `at`: one query instead of n."""
        batch, tokens, dim = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        q = nn.functional.linear(token_at(x, at), weight[:dim], None if bias is None else bias[:dim])
        kv = nn.functional.linear(x, weight[dim:], None if bias is None else bias[dim:])
        q = q.reshape(batch, 1, -1, self.head_dim).transpose(1, 2)
        k, v = kv.reshape(batch, tokens, 2, -1, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        seen = torch.arange(tokens, device=x.device) <= at[:, None, None, None] if self.causal else None
        return self.proj(attend(q, k, v, scale=self.scale, seen=seen).reshape(batch, dim))

    def fuse(self, norm: Norm | None = None, layer_scale: LayerScale | None = None) -> "SelfAttention":
        """The same function with 1/sqrt(d), a following layer scale and a preceding norm folded into the weights.

        Of a BatchNorm nothing is left to do before it, of a LayerNorm its `plain_layer_norm`.
        """
        require_eval(self)
        qkv, proj = affine(self.qkv), affine(self.proj)
        if isinstance(norm, nn.LayerNorm):
            qkv = after_layer_norm(norm, qkv)
        elif norm is not None:
            qkv = after_batch_norm(norm, qkv)
        if layer_scale is not None:
            proj = proj.scaled(layer_scale.gamma)
        dim = proj.bias.shape[0]
        query_scale = torch.ones_like(qkv.bias)
        query_scale[:dim] = self.scale
        fused = SelfAttention(dim, head_dim=self.head_dim, qkv_bias=True, causal=self.causal).eval()
        fused.scale, fused.folded = 1.0, True
        fused.qkv, fused.proj = as_linear(Affine(*qkv).scaled(query_scale)), as_linear(proj)
        return fused


class SpatialAttention(nn.Module):
    """Self-attention over the positions of a feature map [B, C, H, W]."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.attention = attention

    @property
    def folded(self) -> bool:
        return self.attention.folded

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # Views in both directions where x is channels-last.
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def fuse(self, norm: Norm | None = None, layer_scale: LayerScale | None = None) -> "SpatialAttention":
        """See SelfAttention.fuse."""
        return SpatialAttention(self.attention.fuse(norm, layer_scale)).eval()


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of a feature map [B, C, H, W]."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class AttentionBlock(nn.Module):
    """x + ls1 * attention(norm(x)), then x + ls2 * ConvFFN(x): the block of the image tower's last stages.

    Args:
        channels: channels in and out, a multiple of `head_dim`.
        ffn_kernel: kernel of the ConvFFN's depthwise convolution.
        mlp_ratio: ConvFFN's hidden width over `channels`.
        head_dim: width of an attention head.
        drop_path: probability of dropping either branch of a sample in training.
        layer_scale: initial value of both layer scales.
        layer_norm: whether `norm` is a LayerNorm (MobileCLIP2's MCi3 and MCi4) in place of a BatchNorm.
    """

    def __init__(
        self,
        channels: int,
        *,
        ffn_kernel: tuple[int, int],
        mlp_ratio: float,
        head_dim: int = 32,
        drop_path: float = 0.0,
        layer_scale: float = 1e-5,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.norm: Norm = ChannelLayerNorm(channels, eps=1e-5) if layer_norm else nn.BatchNorm2d(channels)
        self.token_mixer = SpatialAttention(SelfAttention(channels, head_dim=head_dim, qkv_bias=False))
        self.layer_scale_1 = LayerScale(channels, layer_scale)
        self.conv_ffn = ConvFFN(channels, int(channels * mlp_ratio), ffn_kernel)
        self.layer_scale_2 = LayerScale(channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = x + self.drop_path(self.layer_scale_1(self.token_mixer(self.norm(x))))
        return x + self.drop_path(self.layer_scale_2(self.conv_ffn(x)))

    def fuse(self) -> nn.Sequential:
        """Two residuals of plain layers; BN, layer scales and the attention's scale are in the weights."""
        require_eval(self)
        mixer: nn.Module = self.token_mixer.fuse(self.norm, self.layer_scale_1)
        if isinstance(self.norm, nn.LayerNorm):
            mixer = nn.Sequential(OrderedDict(norm=plain_layer_norm(self.norm), attention=mixer))
        attention = Residual(mixer)
        ffn = Residual(self.conv_ffn.fuse(self.layer_scale_2))
        return nn.Sequential(OrderedDict(token_mixer=attention, conv_ffn=ffn)).eval()


def token_at(x: Float[Tensor, "b n c"], index: Int[Tensor, " b"]) -> Float[Tensor, "b c"]:
    """One token of each sample."""
    return x[torch.arange(x.shape[0], device=x.device), index]


class TransformerLayer(nn.Module):
    """x + attention(LN(x)), then x + FFN(LN(x)).

    Args:
        dim: width in and out.
        head_dim: width of an attention head.
        mlp_ratio: FFN's hidden width over `dim`.
        causal: whether a token sees only itself and earlier tokens.
        norm_eps: what LayerNorm adds to the variance.
    """

    folded = False

    def __init__(
        self, dim: int, *, head_dim: int, mlp_ratio: float, causal: bool = False, norm_eps: float = 1e-5
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attention = SelfAttention(dim, head_dim=head_dim, qkv_bias=True, causal=causal)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))

    def forward_at(self, x: Float[Tensor, "b n c"], at: Int[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """The output at one token of each sample, `at`, without computing the others."""
        x = token_at(x, at) + self.attention.forward_at(self.norm1(x), at)
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))

    def fuse(self) -> "TransformerLayer":
        """The same with the norms' scales and shifts and the attention's scale folded into the weights."""
        require_eval(self)
        fused = copy.deepcopy(self)
        fused.folded = True
        fused.norm1, fused.norm2 = plain_layer_norm(self.norm1), plain_layer_norm(self.norm2)
        fused.attention = self.attention.fuse(self.norm1)
        fused.fc1 = as_linear(after_layer_norm(self.norm2, affine(self.fc1)))
        return fused


class NormProjection(nn.Module):
    """proj(LN(x)).

    Args:
        dim: width in.
        embed_dim: width out.
        bias: whether the projection has a bias.
        norm_eps: what LayerNorm adds to the variance.
    """

    def __init__(self, dim: int, embed_dim: int, *, bias: bool = False, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)  # PyTorch computes it in fp32 under autocast
        self.proj = nn.Linear(dim, embed_dim, bias=bias)

    def forward(self, x: Float[Tensor, "b c"]) -> Float[Tensor, "b embed"]:
        return self.proj(self.norm(x))

    def fuse(self) -> nn.Sequential:
        """A LayerNorm that only normalises, then one linear layer that holds its scale and shift."""
        require_eval(self)
        proj = as_linear(after_layer_norm(self.norm, affine(self.proj)))
        return nn.Sequential(OrderedDict(norm=plain_layer_norm(self.norm), proj=proj)).eval()
