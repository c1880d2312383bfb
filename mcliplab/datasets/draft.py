"""A sample on its way into a shard, and the pictures' common treatment: fit, flatten on white, encode."""

import hashlib
import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops, ImageOps

from mcliplib.data.sample import decode_image
from mcliplib.errors import UserError
from mcliplib.images import on_white

DRAWING_SIZE = 72  # px, square: flat drawings keep their look, and a 64 px model can still crop
PHOTO_SIZE = 96  # px, shorter side
QUALITY = 80  # WebP
_RENDER_WIDTH = 256  # px; scaled down afterwards
_DPI = 90  # what Inkscape took for its points and millimetres when these drawings were made


@dataclass(frozen=True)
class Draft:
    """One encoded sample. `image` is decoded from `payload`, so that every check sees what readers will see."""

    key: str
    payload: bytes
    image: Image.Image
    caption: str
    meta: Mapping[str, Any]


def make_draft(key: str, image: Image.Image, caption: str, *, drawing: bool, **meta: Any) -> Draft:
    """Encode an RGB image of final size. Drawings take lossless WebP where that is smaller."""
    payload = _webp(image, quality=QUALITY)
    if drawing:
        payload = min(payload, _webp(image, lossless=True), key=len)
    name = ascii_name(key)
    facts = {"uid": name, "sha256": hashlib.sha256(payload).hexdigest(), **meta}
    return Draft(name, payload, decode_image(payload), caption, facts)


def _webp(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=6, **options)
    return buffer.getvalue()


def render_svg(svg: str, size: int, *, trim: bool = False) -> Image.Image:
    """Draw SVG text to fit a white square of ``size`` px, without system fonts (they differ between machines).

    Args:
        svg: its text.
        size: pixels, height and width.
        trim: cut the empty margin first, for drawings that fill only a corner of their page.

    Raises:
        UserError: resvg-py is not installed.
        ValueError: the drawing cannot be rendered.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise UserError("drawing SVG needs resvg-py: pip install 'mcliplib[build]'") from error
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_RENDER_WIDTH, dpi=_DPI, skip_system_fonts=True))
    except Exception as error:  # the binding raises several kinds for broken drawings
        raise ValueError(f"cannot render: {error}") from error
    with Image.open(io.BytesIO(png)) as drawn:
        page = on_white(drawn)
    return fit_square(trimmed(page) if trim else page, size)


def trimmed(image: Image.Image) -> Image.Image:
    """The content of an image on white with a margin of 4% of its longer side."""
    box = ImageChops.invert(image).convert("L").point([0] * 8 + [255] * 248).getbbox()
    content = image.crop(box) if box else image
    return ImageOps.expand(content, round(0.04 * max(content.size)), "white")


def fit_square(image: Image.Image, size: int) -> Image.Image:
    """The whole image on a white square of ``size`` px."""
    scale = size / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    page = Image.new("RGB", (size, size), "white")
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    page.paste(small, ((size - width) // 2, (size - height) // 2))
    return page


def shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Scaled so that the shorter side has ``size`` px; the proportions stay, up to 2:1 (then the middle is kept)."""
    width, height = image.size
    longest = 2 * min(width, height)
    if max(width, height) > longest:
        left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
        image = image.crop((left, top, min(width, left + longest), min(height, top + longest)))
    scale = size / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def ascii_name(text: str) -> str:
    """A key: ASCII lower case letters, digits and dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def same_words(caption: str) -> str:
    """Return a caption reduced to its words, for comparing: "A banana." and "banana" are the same.

    Stricter than `mcliplib.data.concept_of`, which keeps articles and accents: here a caption that is missed would put
    one thing into two sets. `concept_of` also decides by a hash which concepts the experiments hold out, so changing it
    would change their recorded runs.
    """
    return re.sub(r"^(an?|the|some)-", "", ascii_name(caption))


def stable_order(text: str) -> str:
    """A sort key that shuffles, the same way on every machine."""
    return hashlib.sha256(f"mcliplib:{text}".encode()).hexdigest()
