"""RandAugment's fourteen operations (1909.13719), numbered and scaled as the public DataCompDR release stores them.

Numbers, magnitudes and pixels are those of `torchvision.transforms.RandAugment`. torchvision draws and applies in one
step; replay needs the two apart, so here is a table of them over torchvision's public functions.
"""

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image

from mcliplib._vision import InterpolationMode
from mcliplib._vision import functional as tv
from mcliplib.errors import UserError

_NEAREST = InterpolationMode.NEAREST
_LARGEST_MAGNITUDE = 10_000  # far above any recipe's; keeps coordinates in Pillow's range
_POSTERIZE_BITS = 8


class Op(NamedTuple):
    """One operation of RandAugment: its number in `OPS` and its magnitude, in the unit of that operation."""

    number: int
    magnitude: float


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        name: torchvision's.
        weakest: magnitude in the first bin; for translations a share of the image's side.
        strongest: magnitude in the last bin.
        signed: whether the sign is drawn.
        run: image and magnitude -> image of the same size.
        in_pixels: whether stored magnitudes are pixels, and so depend on the image's size.
    """

    name: str
    weakest: float
    strongest: float
    signed: bool
    run: Callable[[Image.Image, float], Image.Image]
    in_pixels: bool = False


def _shear_x(image: Image.Image, slope: float) -> Image.Image:
    return _affine(image, shear=[math.degrees(math.atan(slope)), 0.0], center=[0, 0])


def _shear_y(image: Image.Image, slope: float) -> Image.Image:
    return _affine(image, shear=[0.0, math.degrees(math.atan(slope))], center=[0, 0])


def _translate_x(image: Image.Image, pixels: float) -> Image.Image:
    return _affine(image, translate=[int(pixels), 0])


def _translate_y(image: Image.Image, pixels: float) -> Image.Image:
    return _affine(image, translate=[0, int(pixels)])


def _affine(
    image: Image.Image,
    translate: list[int] | None = None,
    shear: list[float] | None = None,
    center: list[int] | None = None,
) -> Image.Image:
    return tv.affine(image, 0.0, translate or [0, 0], 1.0, shear or [0.0, 0.0], _NEAREST, center=center)


OPS: tuple[Operator, ...] = (
    Operator("Identity", 0.0, 0.0, False, lambda image, _: image),
    Operator("ShearX", 0.0, 0.3, True, _shear_x),
    Operator("ShearY", 0.0, 0.3, True, _shear_y),
    Operator("TranslateX", 0.0, 150.0 / 331.0, True, _translate_x, in_pixels=True),
    Operator("TranslateY", 0.0, 150.0 / 331.0, True, _translate_y, in_pixels=True),
    Operator("Rotate", 0.0, 30.0, True, lambda image, degrees: tv.rotate(image, degrees, _NEAREST)),
    Operator("Brightness", 0.0, 0.9, True, lambda image, change: tv.adjust_brightness(image, 1.0 + change)),
    Operator("Color", 0.0, 0.9, True, lambda image, change: tv.adjust_saturation(image, 1.0 + change)),
    Operator("Contrast", 0.0, 0.9, True, lambda image, change: tv.adjust_contrast(image, 1.0 + change)),
    Operator("Sharpness", 0.0, 0.9, True, lambda image, change: tv.adjust_sharpness(image, 1.0 + change)),
    Operator("Posterize", 8.0, 4.0, False, lambda image, bits: tv.posterize(image, int(bits))),
    Operator("Solarize", 255.0, 0.0, False, lambda image, threshold: tv.solarize(image, threshold)),
    Operator("AutoContrast", 0.0, 0.0, False, lambda image, _: tv.autocontrast(image)),
    Operator("Equalize", 0.0, 0.0, False, lambda image, _: tv.equalize(image)),
)


def magnitude_of(number: int, level: int, bins: int, size: int) -> float:
    """The unsigned magnitude of an operation.

    Args:
        number: place in `OPS`.
        level: the strength, from 0 to `bins` - 1.
        bins: strengths to choose from.
        size: pixels, side of the square image; translations depend on it.

    Returns:
        torchvision's value: a float32 bin as a Python float, for Posterize a whole number of bits.
    """
    operator = OPS[number]
    if operator.name == "Posterize":
        return float(_POSTERIZE_BITS - round(level / ((bins - 1) / 4)))
    unit = size if operator.in_pixels else 1
    return float(torch.linspace(operator.weakest * unit, operator.strongest * unit, bins)[level])


def apply_op(image: Image.Image, op: Op, sampled_size: int) -> Image.Image:
    """One operation on a square RGB image.

    Args:
        image: any size; not modified.
        op: with the magnitude for an image of `sampled_size`.
        sampled_size: pixels, side of the image for which the magnitude was drawn. A translation is scaled by the
            image's side over this one and cut to whole pixels, so that the same share of the picture leaves the frame.
            All other magnitudes are ratios, angles, bits or grey levels, the same at any size.
    """
    operator = OPS[op.number]
    scale = image.width / sampled_size if operator.in_pixels else 1.0  # exactly 1.0 at the sampled size
    return operator.run(image, op.magnitude * scale)


def check_magnitude(number: int, magnitude: int | float, key: str) -> None:
    """Refuse a magnitude with which an operation cannot be run.

    Raises:
        UserError: not finite, absurdly large, or a number of bits that a byte does not have; names the key.
    """
    name = OPS[number].name
    low, high = (1, _POSTERIZE_BITS) if name == "Posterize" else (-_LARGEST_MAGNITUDE, _LARGEST_MAGNITUDE)
    if not low <= magnitude <= high:  # also false for NaN
        raise UserError(f"{key}: the magnitude of {name} must lie in {low}..{high}, got {reprlib.repr(magnitude)}")
