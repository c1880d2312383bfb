"""Rows of dots: each row is named, each series looks alike in all rows, intervals are drawn from end to end."""

import matplotlib.pyplot as plt
import pytest

from mcliplab.figures import Interval, draw_dots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_rows_series_and_intervals():
    rows = {"first": {"a": Interval(2.0, 1.0, 4.0), "b": [1.0, 3.0]}, "second": {"b": [5.0]}}
    (axis,) = draw_dots(rows, "points", reference=0.0).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["first", "second"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is at the top
    assert axis.get_xlabel() == "points"
    bar, a, b, again = (line.get_xdata().tolist() for line in axis.lines[:4])
    assert (bar, a, b, again) == ([1.0, 4.0], [2.0], [1.0, 3.0], [5.0])
    looks = [(line.get_marker(), line.get_color()) for line in axis.lines]
    assert looks[2] == looks[3] != looks[1]
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == ["a", "b"]


def test_one_series_needs_no_legend():
    (axis,) = draw_dots({"only": {"a": [1.0]}}, "x").axes
    assert axis.figure.legends == []
