"""Many small images with their captions on one page: the fastest way to see what a data set really holds."""

import textwrap
from collections.abc import Sequence
from typing import TypeVar

from matplotlib.figure import Figure

from mcliplib.data.sample import Sample

_Item = TypeVar("_Item")


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most ``count`` items at even distances, in order: the first of a sorted set would all look alike."""
    if count >= len(items):
        return list(items)
    return [items[int(index * len(items) / count)] for index in range(max(0, count))]


def contact_sheet(samples: Sequence[Sample], columns: int = 8, cell: float = 1.3, caption_width: int = 20) -> Figure:
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
    figure = Figure(figsize=(columns * cell, rows * (cell + 0.4)), facecolor="white")
    if not samples:
        figure.text(0.5, 0.5, "no samples", ha="center", va="center")
        return figure
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, sample in zip(axes, samples, strict=False):
        axis.imshow(sample.image)
        lines = textwrap.wrap(sample.caption, caption_width, max_lines=2, placeholder=" …")
        axis.set_title("\n".join(lines).replace("$", r"\$"), fontsize=7, y=-0.03, va="top")
    figure.subplots_adjust(
        left=0.01, right=0.99, top=0.995, bottom=0.45 / figure.get_figheight(), hspace=0.35, wspace=0.08
    )
    return figure
