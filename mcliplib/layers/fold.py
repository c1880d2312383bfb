"""The algebra of structural reparameterization: everything that is linear folds into one kernel and one bias.

A convolution is y = K * x + b. Batch normalisation, a per-channel scale, an identity and a sum of parallel
convolutions are linear too, so each composition of them is again one (K, b). FastViT (2303.14189) and MobileOne
(2206.04040) fold the branches; we fold every other linear neighbour as well.
"""

from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

Plain = TypeVar("Plain", nn.Conv2d, nn.Linear)


@runtime_checkable
class Foldable(Protocol):
    """A block that has a plain form. Where that form is of the same class, it says `folded = True`."""

    def fuse(self) -> nn.Module:
        """A new module, equal in eval mode; it shares no parameter with this one."""


class Affine(NamedTuple):
    """A convolution or a linear map, as data."""

    kernel: Float[Tensor, "out *rest"]
    bias: Float[Tensor, " out"]

    def __add__(self, other: "Affine") -> "Affine":  # type: ignore[override]
        """Two parallel branches with kernels of one size, summed."""
        return Affine(self.kernel + other.kernel, self.bias + other.bias)

    def scaled(self, scale: Float[Tensor, " out"]) -> "Affine":
        """The map followed by a per-output-channel scale."""
        return Affine(self.kernel * _per_output(scale, self.kernel), self.bias * scale)


def affine(module: nn.Conv2d | nn.Linear) -> Affine:
    """The (kernel, bias) of a convolution or linear layer; a missing bias is zero."""
    bias = module.bias if module.bias is not None else module.weight.new_zeros(module.weight.shape[0])
    return Affine(module.weight, bias)


def batch_norm_affine(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """BatchNorm in eval mode as y = scale * x + shift, per channel."""
    assert bn.running_var is not None
    assert bn.running_mean is not None
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return scale, bn.bias - bn.running_mean * scale


def then_batch_norm(map_: Affine, bn: nn.BatchNorm2d) -> Affine:
    """The map followed by BatchNorm in eval mode."""
    scale, shift = batch_norm_affine(bn)
    scaled = map_.scaled(scale)
    return Affine(scaled.kernel, scaled.bias + shift)


def after_batch_norm(bn: nn.BatchNorm2d, map_: Affine) -> Affine:
    """BatchNorm in eval mode followed by a linear map [out, in].

    Only for maps without padding: a padded convolution sees zeros at the border where BatchNorm gave `shift`.
    """
    return _after_scale_and_shift(*batch_norm_affine(bn), map_)


def after_layer_norm(norm: nn.LayerNorm, map_: Affine) -> Affine:
    """LayerNorm's learned scale and shift, followed by a linear map [out, in].

    What is left of the norm is `plain_layer_norm(norm)`: it depends on each sample, so it folds into nothing.
    """
    if not norm.elementwise_affine:
        return map_
    return _after_scale_and_shift(norm.weight, norm.bias, map_)


def plain_layer_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """A LayerNorm of the same class and width that only normalises: no scale, no shift."""
    return type(norm)(norm.normalized_shape, eps=norm.eps, elementwise_affine=False).eval()


def identity_kernel(channels: int, groups: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """The kernel of the convolution that changes nothing: a one at the centre of each channel's own filter."""
    per_group = channels // groups
    kernel = like.new_zeros(channels, per_group, *size)
    index = torch.arange(channels, device=like.device)
    kernel[index, index % per_group, size[0] // 2, size[1] // 2] = 1.0
    return kernel


def pad_kernel(kernel: Float[Tensor, "out in_ h w"], size: tuple[int, int]) -> Tensor:
    """A smaller kernel set in the centre of a larger one: the same function under 'same' padding."""
    dh, dw = (size[0] - kernel.shape[2]) // 2, (size[1] - kernel.shape[3]) // 2
    return nn.functional.pad(kernel, (dw, dw, dh, dh))


def as_conv(map_: Affine, like: nn.Conv2d) -> nn.Conv2d:
    """A plain convolution with this kernel and bias, and the geometry of `like`."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        tuple(map_.kernel.shape[2:]),  # type: ignore[arg-type]
        stride=like.stride,  # type: ignore[arg-type]
        padding=like.padding,  # type: ignore[arg-type]
        groups=like.groups,
    ).to(map_.kernel)
    return _filled(conv, map_)


def as_linear(map_: Affine) -> nn.Linear:
    """A plain linear layer with this weight [out, in] and bias."""
    return _filled(nn.Linear(map_.kernel.shape[1], map_.kernel.shape[0]).to(map_.kernel), map_)


def is_folded(module: nn.Module) -> bool:
    """Whether every block inside a module is in its plain form already."""
    return not any(isinstance(part, Foldable) and not getattr(part, "folded", False) for part in module.modules())


def require_eval(module: nn.Module) -> None:
    """Refuse to fold a block in train mode: its BatchNorm would use the batch's statistics, not the stored ones.

    Raises:
        RuntimeError: `module.training` is true.
    """
    if module.training:
        raise RuntimeError(f"{type(module).__name__} is in train mode; call .eval() before fusing it")


def _after_scale_and_shift(scale: Tensor, shift: Tensor, map_: Affine) -> Affine:
    return Affine(map_.kernel * scale, map_.bias + map_.kernel @ shift)


def _filled(module: Plain, map_: Affine) -> Plain:
    with torch.no_grad():
        module.weight.copy_(map_.kernel)
        assert module.bias is not None
        module.bias.copy_(map_.bias)
    return module.eval()


def _per_output(scale: Tensor, kernel: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (kernel.dim() - 1))
