"""A pre-norm transformer layer: the middle of MCt and the whole of the Base text tower."""

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.attention import SelfAttention


class TransformerLayer(nn.Module):
    """x + attention(LN(x)), then x + FFN(LN(x)).

    Args:
        dim: width in and out.
        head_dim: width of an attention head.
        mlp_ratio: FFN's hidden width over `dim`.
        causal: whether a token sees only itself and earlier tokens.
    """

    def __init__(self, dim: int, *, head_dim: int, mlp_ratio: float, causal: bool = False) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.attention = SelfAttention(dim, head_dim=head_dim, qkv_bias=True, causal=causal)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))
