"""Strong augmentations as parameters, not pixels: drawn once, stored in a few bytes, replayed exactly at any size.

For example::

    generator = torch.Generator().manual_seed(0)
    params = augment.sample(image.size, generator)
    pixels = augment.apply(image, params, size=96)                 # [3, 96, 96], the same at each call
    assert augment.decode(augment.encode(params)) == params        # [crop, ops]: what `KEY.paug.json` holds

The draws are those of torchvision's RandomResizedCrop, RandomHorizontalFlip, RandAugment and RandomErasing, in this
order: a generator with seed s draws what they draw after `torch.manual_seed(s)`, and the pixels are equal too. (Only a
flip or an erased box of probability 1 differs: torchvision draws a number that cannot matter.)
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from mcliplib.errors import UserError
from mcliplib.images import on_white
from mcliplib.reinforce.ops import OPS, Op, apply_op, magnitude_of
from mcliplib.reinforce.params import PAPER, Augmentation, AugmentSettings, Box, decode, encode

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
) -> Float[Tensor, "3 size size"]:
    """The augmented picture as a tensor in [0, 1], not normalised; arguments and errors as `replay`."""
    pixels = np.asarray(replay(image, params, size, settings, key=key))
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
) -> Image.Image:
    """The augmented picture: crop, bicubic resize, flip, RandAugment's operations, erased box.

    Equal arguments and library versions give equal pixels. Cropping comes first, as in torchvision: what lies outside
    of the crop does not leak into its border (Pillow's `resize(box=...)` would let it).

    Args:
        image: the original; transparency is laid on white. Not modified.
        params: drawn for a picture of this size.
        size: side of the result in pixels, which need not be the one that the parameters were drawn at.
        settings: of these, only `size` matters here: the unit of translations and erased boxes.
        key: the sample's name, for the message.

    Returns:
        RGB, `size` x `size`.

    Raises:
        UserError: the crop leaves the image, so that image and parameters do not belong together; names the key.
    """
    if image.mode != "RGB" or "transparency" in image.info:
        image = on_white(image)  # copies, which is not for the common case
    if (crop := params.crop) is not None:
        right, bottom = crop.left + crop.width, crop.top + crop.height
        if right > image.width or bottom > image.height:
            raise UserError(f"{key}: the crop {list(crop)} leaves the image of {image.width} x {image.height} pixels")
        image = image.crop((crop.left, crop.top, right, bottom))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if params.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for op in params.ops or ():
        image = apply_op(image, op, settings.size)
    if params.erase is not None:
        image.paste((0, 0, 0), _scaled(params.erase, size / settings.size))
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


def _scaled(box: Box, scale: float) -> tuple[int, int, int, int]:
    """The box as PIL's (left, top, right, bottom), its edges rounded to whole pixels at the new scale."""
    edges = (box.left, box.top, box.left + box.width, box.top + box.height)
    left, top, right, bottom = (round(edge * scale) for edge in edges)
    return left, top, right, bottom
