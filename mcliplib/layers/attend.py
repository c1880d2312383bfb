"""softmax(scale * q k^T) v, by the kernel that is fast where it runs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_SHORT = 32  # tokens, below which matrix products are too small to gain from bf16


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
        return _in_steps(q, k, v, scale=scale, causal=causal, seen=seen)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, scale=scale)


def _in_steps(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool, seen: Tensor | None
) -> Float[Tensor, "b h m d"]:
    """The same as products and a softmax: on CPUs, PyTorch's one kernel has a bf16 backward several times slower."""
    if causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    dtype = q.dtype
    with torch.autocast("cpu", enabled=False):
        if k.shape[2] < _SHORT:
            q, k, v = q.float(), k.float(), v.float()
        products = scale * q @ k.transpose(2, 3)
        if seen is not None:
            products = products.masked_fill(~seen, float("-inf"))
        return (products.softmax(dim=3, dtype=torch.float32).to(v.dtype) @ v).to(dtype)
