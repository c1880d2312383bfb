"""A depthwise convolution with several outputs per channel, in the form that runs fast."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class WideDepthwise(nn.Module):
    """The function of a convolution whose groups each turn one channel into `m`.

    Libraries have fast kernels for one output per channel only (oneDNN needs a third of the time there). So the input
    is repeated `m` times, convolved one to one, and the outputs are put back in the order they had.

    Args:
        conv: a convolution with as many groups as input channels, and `m` times as many output channels.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        channels, out = conv.in_channels, conv.out_channels
        self.multiplier = out // channels
        self.conv = nn.Conv2d(
            out,
            out,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            groups=out,
            bias=conv.bias is not None,
        ).to(conv.weight)
        order = torch.arange(out).reshape(channels, self.multiplier).T.flatten()
        self.conv.load_state_dict({name: tensor[order] for name, tensor in conv.state_dict().items()})
        self.eval()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b mc h2 w2"]:
        repeated = torch.cat([x] * self.multiplier, dim=1)
        return nn.functional.channel_shuffle(self.conv(repeated), self.multiplier)


def widen_depthwise(module: nn.Module) -> None:
    """Replace every such convolution inside a module by its `WideDepthwise`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.groups == child.in_channels < child.out_channels:
            setattr(module, name, WideDepthwise(child))
        else:
            widen_depthwise(child)
