"""A wide 1x1 convolution as the matrix product that it is, in the form that runs fast on small maps."""

from jaxtyping import Float
from torch import Tensor, nn

WIDE = 2**19  # weights


class PointwiseLinear(nn.Linear):
    """The function of a 1x1 convolution, computed as a linear layer over the channels of each position.

    oneDNN rearranges a convolution's weights at every call. Where they outnumber the map's values (MobileCLIP2-S4 has
    2048 -> 8192 channels on 4x4 positions) that takes several times longer than the product; a linear layer's weights
    are read as they lie. On a channels-last map both permutations are views.

    Args:
        conv: a 1x1 convolution of stride 1, without groups or padding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
        self.to(conv.weight)
        self.load_state_dict(
            {name: tensor.flatten(1) if tensor.dim() > 1 else tensor for name, tensor in conv.state_dict().items()}
        )
        self.eval()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def linearize_wide_pointwise(module: nn.Module) -> None:
    """Replace every 1x1 convolution of at least `WIDE` weights inside a module by its `PointwiseLinear`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and _is_pointwise(child) and child.weight.numel() >= WIDE:
            setattr(module, name, PointwiseLinear(child))
        else:
            linearize_wide_pointwise(child)


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
