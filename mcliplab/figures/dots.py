"""Results in rows of dots: one row a method or runtime, with intervals or with one dot a seed."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mcliplib.viz.style import PALETTE, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS = (("o", "blue"), ("s", "orange"), ("^", "green"), ("D", "purple"))
_HEIGHT, _MORE = 0.34, 0.06  # inches a row; for each series beyond two
_APART = 0.24  # rows, between the series of one
_NAME = 24  # letters of a row's name on one line: the dots keep half of the width


class Interval(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def draw_dots(
    rows: Mapping[str, Mapping[str, Interval | Sequence[float]]], xlabel: str, *, reference: float | None = None
) -> "Figure":
    """The first row at the top.

    Args:
        rows: name -> series -> an interval, or a dot for each number. A series looks the same in every row.
        xlabel: what the numbers are.
        reference: where a dashed line stands.
    """
    import matplotlib.pyplot as plt

    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    height = _HEIGHT + _MORE * max(0, len(series) - 2)
    figure, axis = plt.subplots(figsize=(WIDTH, height * len(rows) + 1.1), layout="constrained")
    for at, row in enumerate(rows.values()):
        for name, found in row.items():
            marker, colour = _LOOKS[series.index(name)]
            place = at + (_APART * (series.index(name) - (len(series) - 1) / 2) if len(row) > 1 else 0)
            values = [found.value] if isinstance(found, Interval) else found
            if isinstance(found, Interval):
                axis.plot([found.low, found.high], [place, place], color=PALETTE["black"], lw=1.2, linestyle="-")
            axis.plot(values, [place] * len(values), marker, color=PALETTE[colour], ms=5, linestyle="", label=name)
    if reference is not None:
        axis.axvline(reference, color=PALETTE["vermillion"], ls="--", lw=1)
    axis.set_yticks(range(len(rows)), [textwrap.fill(name, _NAME) for name in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel(xlabel, fontsize=10)  # below the names as well: a long one fits into the figure
    if len(series) > 1:
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, fontsize=9)
    return figure
