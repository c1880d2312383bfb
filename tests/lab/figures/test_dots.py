"""Rows of dots: each row is named, each series looks alike in all rows, intervals are drawn from end to end."""

import matplotlib.pyplot as plt
import pytest

from mcliplab.figures import Interval, draw_dots
from mcliplib.viz import WIDTH, use_style


@pytest.fixture(autouse=True)
def in_the_style_of_the_book():
    use_style()
    yield
    plt.close("all")


def test_rows_series_and_intervals():
    rows = {"first": {"a": Interval(2.0, 1.0, 4.0), "b": [1.0, 3.0]}, "second": {"b": [5.0]}}
    figure = draw_dots(rows, "points", reference=0.0)
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["first", "second"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first row is at the top
    assert figure.get_supxlabel() == "points"
    bar, a, b, again = (line.get_xdata().tolist() for line in axis.lines[:4])
    assert (bar, a, b, again) == ([1.0, 4.0], [2.0], [1.0, 3.0], [5.0])
    looks = [(line.get_marker(), line.get_color()) for line in axis.lines]
    assert looks[2] == looks[3] != looks[1]
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == ["a", "b"]


def test_one_series_needs_no_legend():
    (axis,) = draw_dots({"only": {"a": [1.0]}}, "x").axes
    assert axis.figure.legends == []


def test_long_names_leave_the_figure_as_wide_as_it_is():
    figure = draw_dots(
        {"+ some layers in float, biases corrected": {"a": Interval(0.2, -0.4, 0.9)}},
        "change of the suite's mean, points",
    )
    figure.canvas.draw()
    assert figure.get_tightbbox().width <= WIDTH  # what a notebook shows of it
    (axis,) = figure.axes
    assert axis.get_position().width > 0.5
