"""The last step of a transformer tower: one token's LayerNorm and its projection into the shared space."""

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.fold import affine, after_layer_norm, as_linear, plain_layer_norm, require_eval


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
