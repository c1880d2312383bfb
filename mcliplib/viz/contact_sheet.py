"""Many small images with their captions on one page: the fastest way to see what a data set really holds."""

import textwrap
from collections.abc import Sequence
from typing import TypeVar

from matplotlib.figure import Figure
from PIL import Image, ImageOps

from mcliplib.data.sample import Sample

_CAPTION_INCHES = 0.36  # two lines
_Item = TypeVar("_Item")


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most ``count`` items at even distances, in order: the first of a sorted set would all look alike."""
    if count >= len(items):
        return list(items)
    return [items[int(index * len(items) / count)] for index in range(max(0, count))]


def contact_sheet(samples: Sequence[Sample], columns: int = 8, cell: float = 1.5, caption_width: int = 20) -> Figure:
    """Draw the samples in rows of ``columns``, each image above its caption.

    Args:
        samples: in reading order; an empty sequence gives a figure that says so.
        columns: images per row.
        cell: width of one image in inches.
        caption_width: characters per caption line; two lines are shown, longer captions end in "…".

    Returns:
        A matplotlib figure of its own, outside pyplot: nothing has to be closed.
    """
    rows = max(1, -(-len(samples) // columns))
    row = cell + _CAPTION_INCHES
    figure = Figure(figsize=(columns * cell, rows * row), facecolor="white")
    figure.set_layout_engine("none")  # the axes are placed by hand
    if not samples:
        figure.text(0.5, 0.5, "no samples", ha="center", va="center")
        return figure
    for number, sample in enumerate(samples):
        left, top = number % columns / columns, 1 - number // columns / rows
        height = 0.94 * cell / (rows * row)
        axis = figure.add_axes((left + 0.03 / columns, top - height, 0.94 / columns, height))
        axis.set_axis_off()
        axis.imshow(_square(sample.image))
        lines = textwrap.wrap(sample.caption, caption_width, max_lines=2, placeholder=" …")
        text = "\n".join(lines).replace("$", r"\$")
        axis.text(0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", fontsize=9, linespacing=1.1)
    return figure


def _square(image: Image.Image) -> Image.Image:
    """The image in the middle of a white square, so that captions stand at one height."""
    side = max(image.size)
    return ImageOps.pad(image, (side, side), color="white")
