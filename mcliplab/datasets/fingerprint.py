"""Which two images are the same picture? A perceptual hash of the shapes together with a small map of the colours.

A perceptual hash alone calls a red and a blue circle the same; colour alone calls two skies the same. Two images
are near-duplicates when both agree. White margins are cut first, so that the same drawing in another frame counts.
The hash of a plain shape (a disc, a heart, a sign on a purple tile) is mostly noise; there, the colour maps decide
alone, when they differ by little against the ink in the fainter image.

The package imagehash has such a hash, `phash`, but compares two pictures at a time, where one matrix product here
compares all pairs of two sets, and it has no map of the colours. The tests use it as a second opinion.

The limits were set by looking at the closest pairs of the training and evaluation sets. Below them stand the same
symbols in two styles and copies of one picture; just above them the same thing drawn anew (two trumpets, two ears).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

HASH_LIMIT = 10  # of 63 bits
COLOUR_LIMIT = 0.10  # root mean square difference over an 8 x 8 map of RGB in [0, 1]
PLAIN_LIMIT = 0.15  # the same difference, over the root mean square distance from white of the fainter image

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of n images: `bits` [n, 63] of +-1, `colours` [n, 192] of 0..1."""

    bits: Array
    colours: Array


@cache
def _dct_rows(size: int, rows: int) -> Array:
    """The first rows of the type-II discrete cosine transform as a matrix [rows, size]."""
    frequency, position = np.arange(rows)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * size)).astype(np.float32)


def _trimmed_square(image: Image.Image) -> Image.Image:
    """The content without its white margin, centred on a white square."""
    rgb = image.convert("RGB")
    ink = ImageChops.invert(rgb).convert("L").point([0] * 13 + [255] * 243)
    box = ink.getbbox()
    content = rgb.crop(box) if box else rgb
    side = max(content.size)
    page = Image.new("RGB", (side, side), "white")
    page.paste(content, ((side - content.width) // 2, (side - content.height) // 2))
    return page


def _fingerprint(image: Image.Image) -> tuple[Array, Array]:
    page = _trimmed_square(image)
    grey = np.asarray(page.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32)
    basis = _dct_rows(32, 8)
    low = (basis @ grey @ basis.T).ravel()[1:]  # without the mean brightness
    bits = np.where(low > np.median(low), 1.0, -1.0).astype(np.float32)
    colours = np.asarray(page.resize((8, 8), Image.Resampling.BOX), dtype=np.float32).ravel() / 255
    return bits, colours.astype(np.float32)


def fingerprints(images: Sequence[Image.Image]) -> Fingerprints:
    """Fingerprint each image."""
    pairs = [_fingerprint(image) for image in images]
    if not pairs:
        return Fingerprints(np.zeros((0, 63), np.float32), np.zeros((0, 192), np.float32))
    return Fingerprints(np.stack([bits for bits, _ in pairs]), np.stack([colours for _, colours in pairs]))


def distances(left: Fingerprints, right: Fingerprints) -> tuple[Array, Array]:
    """Hash distance in bits [n, m] and colour distance in 0..1 [n, m] between all pairs."""
    hashed = (left.bits.shape[1] - left.bits @ right.bits.T) / 2
    squares = (left.colours**2).sum(1)[:, None] + (right.colours**2).sum(1)[None] - 2 * left.colours @ right.colours.T
    coloured = np.sqrt(np.maximum(squares, 0) / left.colours.shape[1])
    return hashed.astype(np.float32), coloured.astype(np.float32)


def near_duplicates(left: Fingerprints, right: Fingerprints) -> NDArray[np.bool_]:
    """[n, m]: whether image i of the left and image j of the right are the same picture."""
    hashed, coloured = distances(left, right)
    ink = np.minimum(_ink(left)[:, None], _ink(right)[None])
    same: NDArray[np.bool_] = ((hashed <= HASH_LIMIT) & (coloured <= COLOUR_LIMIT)) | (coloured <= PLAIN_LIMIT * ink)
    return same


def _ink(prints: Fingerprints) -> Array:
    """[n]: root mean square distance of the colour map from white."""
    ink: Array = np.sqrt(((1 - prints.colours) ** 2).mean(axis=1))
    return ink
