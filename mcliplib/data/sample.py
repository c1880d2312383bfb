"""One image-caption pair, and the one place where image bytes become pixels."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mcliplib.images import on_white

MAX_PIXELS = 16_000_000  # a 4000 x 4000 image: far above anything a 256 px model profits from


class GiantImageError(ValueError):
    """The header announces more pixels than we are willing to decode."""


@dataclass(frozen=True)
class Sample:
    """One image-caption pair as read from a shard.

    Attributes:
        key: name of the sample inside its set, for example ``noto-1f34c``.
        image: RGB, uint8, any size; transparency is already composited on white.
        caption: the real caption, stripped, never empty.
        meta: the members of ``KEY.json`` (uid, sha256, concept, style, keywords, source, licence, author, ...).
    """

    key: str
    image: Image.Image
    caption: str
    meta: Mapping[str, Any] = field(default_factory=dict)


def concept_of(caption: str) -> str:
    """The concept of a caption: equal for the same thing drawn in another style, or written with a full stop."""
    return caption.lower().strip(" .")


def decode_image(payload: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode WebP, JPEG or PNG bytes to an RGB image.

    Raises:
        GiantImageError: width x height exceeds ``max_pixels``; nothing was decoded.
        OSError, SyntaxError, ValueError: the bytes are no image that Pillow can read.
    """
    try:
        with Image.open(io.BytesIO(payload)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise GiantImageError(f"{width} x {height} pixels, more than {max_pixels:,}")
            image.load()
            return on_white(image)
    except Image.DecompressionBombError as error:
        raise GiantImageError(str(error)) from error
