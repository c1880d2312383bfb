"""The parameters of one augmentation, the settings they are drawn with, and their form in `KEY.paug.json`.

An augmentation is stored as a JSON list in the order in which it is applied, and only what is configured has a place:
`[crop, flip, ops, erase]`, for the paper's recipe `[crop, ops]` (DataCompDR, 2311.17049). `crop` and `erase` are
`[top, left, height, width]`, `flip` is a boolean, `ops` is `[[op_index, magnitude], ...]`, and null stands for an
augmentation that was skipped.
"""

import reprlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from mcliplib.errors import UserError
from mcliplib.reinforce.ops import OPS, Op, check_magnitude

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
    """What augmentations are drawn from; the defaults are the recipe of DataCompDR.

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
