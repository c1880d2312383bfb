"""One image-caption pair."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mcliplib.images import MAX_PIXELS, read_picture


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
    """Return the concept of a caption: equal for the same thing drawn in another style, or written with a full stop.

    "a banana" and "banana" stay two concepts. The sets were built with a stricter rule
    (`mcliplab.datasets.draft.same_words`); this one must not change, as recorded runs hold concepts out by its hash.
    """
    return caption.lower().strip(" .")


def decode_image(payload: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an encoded picture to an upright RGB image; a very large JPEG at a fraction of its size.

    Raises:
        PictureError: the bytes are no whole picture, or announce too many pixels (see `mcliplib.images.read_picture`).
    """
    return read_picture(payload, max_pixels=max_pixels).image
