"""Strong augmentations as parameters, not pixels: drawn once, stored in a few bytes, replayed exactly at any size.

For example::

    generator = torch.Generator().manual_seed(0)
    params = augment.sample(image.size, generator)
    pixels = augment.apply(image, params, size=96)                 # [3, 96, 96], the same at each call
    assert augment.decode(augment.encode(params)) == params        # [crop, ops]: what `KEY.paug.json` holds

The draws are those of torchvision's RandomResizedCrop, RandomHorizontalFlip, RandAugment and RandomErasing, in this
order: a generator with seed s draws what they draw after `torch.manual_seed(s)`, and the pixels are equal too. (Only a
flip or an erased box of probability 1 differs: torchvision draws a number that cannot matter.)

RandAugment's fourteen operations (1909.13719) are numbered and scaled as the public DataCompDR release stores them.
torchvision draws and applies in one step; replay needs the two apart, so here is a table of them over its public
functions.

An augmentation is stored as a JSON list in the order in which it is applied, and only what is configured has a place:
`[crop, flip, ops, erase]`, for the paper's recipe `[crop, ops]` (DataCompDR, 2311.17049). `crop` and `erase` are
`[top, left, height, width]`, `flip` is a boolean, `ops` is `[[op_index, magnitude], ...]`, and null stands for an
augmentation that was skipped.
"""

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from mcliplib._vision import InterpolationMode
from mcliplib._vision import functional as tv
from mcliplib.errors import UserError
from mcliplib.images import on_white

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


_LARGEST_SIDE = 1 << 20  # pixels; beyond it, coordinates are damage and not a picture's


_PLACES = {  # of an augmentation's list, by whether flips and erasing are configured
    (False, False): ("crop", "ops"),
    (True, False): ("crop", "flip", "ops"),
    (False, True): ("crop", "ops", "erase"),
    (True, True): ("crop", "flip", "ops", "erase"),
}


_MOST = 1000  # operations that are remembered


_known: dict[tuple[int, float], Op] = {}


class Box(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class AugmentSettings:
    """The distribution of augmentations; the defaults are the recipe of DataCompDR.

    Attributes:
        size: pixels, the side of the square after the crop at which magnitudes are stored (the teachers' input).
            Translations and erased boxes are pixels of this square; replay at another size scales them.
        crop_scale: smallest and largest share of the picture's area that the crop keeps.
        crop_ratio: smallest and largest width / height of the crop.
        num_ops: RandAugment's operations on one image.
        magnitude: RandAugment's strength, a bin from 0 to `bins` - 1.
        bins: strengths to choose from.
        randaug_probability: how often RandAugment is applied.
        flip_probability: how often the crop is mirrored; 0 means that flips are not configured and not stored.
        erase_probability: how often a box is blackened; 0 means that erasing is not configured and not stored.
        erase_scale: smallest and largest share of the square's area that is erased.
        erase_ratio: smallest and largest height / width of the erased box.

    Raises:
        UserError: a value outside of what is described here.
    """

    size: int = 224
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    num_ops: int = 2
    magnitude: int = 9
    bins: int = 31
    randaug_probability: float = 1.0
    flip_probability: float = 0.0
    erase_probability: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 0.33)
    erase_ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        if self.size < 1 or self.num_ops < 0 or self.bins < 2 or not 0 <= self.magnitude < self.bins:
            raise UserError(f"augmentation: size >= 1, num_ops >= 0, bins >= 2, 0 <= magnitude < bins; got {self}")
        for name in ("randaug_probability", "flip_probability", "erase_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augmentation: {name} must lie in 0..1, got {getattr(self, name)}")
        for name in ("crop_scale", "crop_ratio", "erase_scale", "erase_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name.endswith("scale") and high > 1):
                raise UserError(f"augmentation: {name} must be a range of positive numbers, got {(low, high)}")


PAPER = AugmentSettings()


@dataclass(frozen=True)
class Augmentation:
    """The parameters of one augmented view, in the order of their use.

    Attributes:
        crop: in pixels of the original picture; None keeps the whole.
        ops: RandAugment's operations; None if it was skipped.
        flip: whether the crop is mirrored.
        erase: in pixels of the square at which the parameters were drawn; None if nothing is erased.
    """

    crop: Box | None = None
    ops: tuple[Op, ...] | None = None
    flip: bool = False
    erase: Box | None = None


def encode(params: Augmentation, settings: AugmentSettings = PAPER) -> list[Any]:
    """One augmentation as the JSON value of the public format.

    Args:
        params: as `sample` draws them.
        settings: those it was drawn with: they say which augmentations have a place in the list.

    Raises:
        ValueError: the parameters hold a flip or an erased box that the settings do not configure.
    """
    if (params.flip and not settings.flip_probability) or (params.erase and not settings.erase_probability):
        raise ValueError("the parameters hold a flip or an erased box: encode them with the settings they come from")
    value: list[Any] = [_listed(params.crop)]
    if settings.flip_probability:
        value.append(params.flip)
    value.append(None if params.ops is None else [list(op) for op in params.ops])
    if settings.erase_probability:
        value.append(_listed(params.erase))
    return value


def decode(value: Any, settings: AugmentSettings = PAPER, *, key: str = "augmentation parameters") -> Augmentation:
    """One augmentation from its JSON value.

    Args:
        value: what `encode` returns, from a file that may hold anything.
        settings: what the file was made with: they say which augmentations have a place in the list.
        key: the sample's name, for the message.

    Raises:
        UserError: not such a value; names the key and what is wrong.
    """
    places = _PLACES[settings.flip_probability > 0, settings.erase_probability > 0]
    if not isinstance(value, list | tuple) or len(value) != len(places):
        raise UserError(f"{key}: expected [{', '.join(places)}], got {reprlib.repr(value)}")
    found = dict(zip(places, value, strict=True))
    flip = found.get("flip")
    if not (flip is None or isinstance(flip, bool)):
        raise UserError(f"{key}: flip must be true, false or null, got {reprlib.repr(flip)}")
    erase = _box(found.get("erase"), "erase", key)
    if erase and max(erase.top + erase.height, erase.left + erase.width) > settings.size:
        raise UserError(f"{key}: the erased box {list(erase)} leaves the square of {settings.size} pixels")
    return Augmentation(_box(found["crop"], "crop", key), _ops(found["ops"], settings.num_ops, key), bool(flip), erase)


def _listed(box: Box | None) -> list[int] | None:
    return None if box is None else list(box)


def _box(value: Any, name: str, key: str) -> Box | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(type(number) is int for number in value):
        raise UserError(f"{key}: {name} must be [top, left, height, width] in whole pixels, got {reprlib.repr(value)}")
    box = Box(*value)
    if min(box.top, box.left) < 0 or min(box.height, box.width) < 1 or max(box) > _LARGEST_SIDE:
        raise UserError(f"{key}: {name} needs top and left >= 0, height and width >= 1, got {reprlib.repr(value)}")
    return box


def _ops(value: Any, number: int, key: str) -> tuple[Op, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != number:
        raise UserError(f"{key}: expected {number} RandAugment operations, got {reprlib.repr(value)}")
    return tuple(_op(pair, key) for pair in value)


def _op(pair: Any, key: str) -> Op:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise UserError(f"{key}: an operation is [op_index, magnitude], got {reprlib.repr(pair)}")
    index, magnitude = pair
    if type(index) is not int or not 0 <= index < len(OPS):
        raise UserError(f"{key}: op_index must be a whole number from 0 to {len(OPS) - 1}, got {reprlib.repr(index)}")
    if type(magnitude) not in (int, float):
        raise UserError(f"{key}: the magnitude of {OPS[index].name} must be a number, got {reprlib.repr(magnitude)}")
    if (index, magnitude) not in _known:  # there are few: a set has one strength
        check_magnitude(index, magnitude, key)
        if len(_known) == _MOST:
            _known.clear()
        _known[index, magnitude] = Op(index, float(magnitude))
    return _known[index, magnitude]


__all__ = ["PAPER", "AugmentSettings", "Augmentation", "Box", "Op", "apply", "decode", "encode", "replay", "sample"]


_TRIES = 10  # torchvision's, before it gives up on a random box


def sample(size: tuple[int, int], generator: Generator, settings: AugmentSettings = PAPER) -> Augmentation:
    """Draw one augmentation.

    Args:
        size: (width, height) of the picture in pixels, as PIL's `image.size`.
        generator: on the CPU; the only source of randomness.
        settings: what to draw from.

    Raises:
        ValueError: the picture has no pixels.
    """
    width, height = size
    if min(width, height) < 1:
        raise ValueError(f"a picture of {width} x {height} pixels has no crops")
    crop = _random_crop(width, height, generator, settings)
    flip = _happens(settings.flip_probability, generator)
    ops = _random_ops(generator, settings) if _happens(settings.randaug_probability, generator) else None
    erase = _random_erase(generator, settings) if _happens(settings.erase_probability, generator) else None
    return Augmentation(crop, ops, flip, erase)


def apply(
    image: Image.Image,
    params: Augmentation,
    size: int = 96,
    settings: AugmentSettings = PAPER,
    *,
    key: str = "augmentation parameters",
    original: tuple[int, int] | None = None,
) -> Float[Tensor, "3 size size"]:
    """The augmented picture as a tensor in [0, 1], not normalised; arguments and errors as `replay`."""
    pixels = np.asarray(replay(image, params, size, settings, key=key, original=original))
    planes = np.empty((3, size, size), np.float32)
    np.divide(pixels.transpose(2, 0, 1), np.float32(255), out=planes)  # one pass; torchvision's to_tensor takes three
    return torch.from_numpy(planes)


def replay(
    image: Image.Image,
    params: Augmentation,
    size: int = 96,
    settings: AugmentSettings = PAPER,
    *,
    key: str = "augmentation parameters",
    original: tuple[int, int] | None = None,
) -> Image.Image:
    """The augmented picture: crop, bicubic resize, flip, RandAugment's operations, erased box.

    Equal arguments and library versions give equal pixels. Cropping comes first, as in torchvision: what lies outside
    of the crop does not leak into its border (Pillow's `resize(box=...)` would let it).

    Args:
        image: the picture; transparency is laid on white. Not modified.
        params: drawn for a picture of this size.
        size: side of the result in pixels, which need not be the one that the parameters were drawn at.
        settings: of these, only `size` matters here: the unit of translations and erased boxes.
        key: the sample's name, for the message.
        original: (width, height) that the parameters were drawn for, where `image` was decoded smaller than that.

    Returns:
        RGB, `size` x `size`.

    Raises:
        UserError: the crop leaves the image, so that image and parameters do not belong together; names the key.
    """
    if image.mode != "RGB" or "transparency" in image.info:
        image = on_white(image)  # copies, which is not for the common case
    if (crop := params.crop) is not None:
        width, height = original or image.size
        if crop.left + crop.width > width or crop.top + crop.height > height:
            raise UserError(f"{key}: the crop {list(crop)} leaves the image of {width} x {height} pixels")
        image = image.crop(_scaled(crop, image.width / width, image.height / height))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if params.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for op in params.ops or ():
        image = apply_op(image, op, settings.size)
    if params.erase is not None:
        image.paste((0, 0, 0), _scaled(params.erase, size / settings.size, size / settings.size, least=0))
    return image


def _happens(probability: float, generator: Generator) -> bool:
    """Whether an event of this probability happens; certain and impossible ones take no draw."""
    if probability in (0, 1):
        return probability == 1
    return bool(torch.rand(1, generator=generator) < probability)


def _random_crop(width: int, height: int, generator: Generator, settings: AugmentSettings) -> Box:
    """torchvision's `RandomResizedCrop.get_params`, draw for draw, from a generator of one's own."""
    for _ in range(_TRIES):
        area, ratio = _area_and_ratio(width * height, settings.crop_scale, settings.crop_ratio, generator)
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            top = _integer(height - down + 1, generator)
            return Box(top, _integer(width - across + 1, generator), down, across)
    narrowest, widest = settings.crop_ratio
    across, down = width, height
    if width / height < narrowest:
        down = min(height, max(1, round(width / narrowest)))
    elif width / height > widest:
        across = min(width, max(1, round(height * widest)))
    return Box((height - down) // 2, (width - across) // 2, down, across)


def _random_ops(generator: Generator, settings: AugmentSettings) -> tuple[Op, ...]:
    drawn = []
    for _ in range(settings.num_ops):
        index = _integer(len(OPS), generator)
        magnitude = magnitude_of(index, settings.magnitude, settings.bins, settings.size)
        if OPS[index].signed and _integer(2, generator):
            magnitude = -magnitude
        drawn.append(Op(index, magnitude))
    return tuple(drawn)


def _random_erase(generator: Generator, settings: AugmentSettings) -> Box | None:
    """torchvision's `RandomErasing.get_params`, draw for draw; None where it gives up."""
    side = settings.size
    for _ in range(_TRIES):
        area, ratio = _area_and_ratio(side * side, settings.erase_scale, settings.erase_ratio, generator)
        down, across = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < down < side and 0 < across < side:
            top = _integer(side - down + 1, generator)
            return Box(top, _integer(side - across + 1, generator), down, across)
    return None


def _area_and_ratio(
    area: int, scale: tuple[float, float], ratio: tuple[float, float], generator: Generator
) -> tuple[float, float]:
    """A share of the area, uniform, and a ratio, uniform in its logarithm (in float32, as torchvision's)."""
    share = torch.empty(1).uniform_(*scale, generator=generator).item()
    low, high = torch.tensor(ratio).log().tolist()
    return area * share, torch.empty(1).uniform_(low, high, generator=generator).exp().item()


def _integer(below: int, generator: Generator) -> int:
    return int(torch.randint(below, (1,), generator=generator))


def _scaled(box: Box, across: float, down: float, *, least: int = 1) -> tuple[int, int, int, int]:
    """The box as PIL's (left, top, right, bottom) in a picture so many times as wide and high; rounded to pixels."""
    left, right = round(box.left * across), round((box.left + box.width) * across)
    top, bottom = round(box.top * down), round((box.top + box.height) * down)
    return left, top, max(right, left + least), max(bottom, top + least)
