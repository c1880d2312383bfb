"""A pre-norm transformer layer: the middle of MCt, the whole of the Base text tower and of the ViT image towers."""

import copy

from jaxtyping import Float, Int
from torch import Tensor, nn

from mcliplib.layers.attention import SelfAttention, token_at
from mcliplib.layers.fold import affine, after_layer_norm, as_linear, plain_layer_norm, require_eval


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

    def read(self, x: Float[Tensor, "b n c"], at: Int[Tensor, " b"]) -> Float[Tensor, "b c"]:
        """The output at one token of each sample, `at`, without computing the others."""
        x = token_at(x, at) + self.attention.read(self.norm1(x), at)
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
