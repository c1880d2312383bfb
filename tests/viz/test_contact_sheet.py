"""The contact sheet shows every sample once, with its caption."""

from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from mcliplib.data import Sample
from mcliplib.viz import use_style
from mcliplib.viz.contact_sheet import contact_sheet, spread


def test_each_sample_has_a_cell_with_its_caption() -> None:
    samples = [Sample(str(n), Image.new("RGB", (20 + n, 10)), f"costs ${n} and more") for n in range(11)]
    figure = contact_sheet(samples, columns=4)
    assert len(figure.axes) == 11
    assert [axis.texts[0].get_text() for axis in figure.axes] == [rf"costs \${n} and more" for n in range(11)]
    shapes = {axis.images[0].get_array().shape for axis in figure.axes}
    assert shapes == {(20 + n, 20 + n, 3) for n in range(11)}
    boxes = [axis.get_position() for axis in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert len({(round(box.x0, 3), round(box.y0, 3)) for box in boxes}) == 11


def test_long_captions_end_and_no_samples_are_said() -> None:
    sheet = contact_sheet([Sample("0", Image.new("RGB", (8, 8)), "word " * 40)])
    text = sheet.axes[0].texts[0].get_text()
    assert text.count("\n") == 1
    assert text.endswith("…")
    assert contact_sheet([]).texts[0].get_text() == "no samples"


@pytest.mark.filterwarnings("error")
def test_it_is_drawn_without_a_warning_in_the_style_of_the_book(tmp_path: Path) -> None:
    with mpl.rc_context():
        use_style()
        contact_sheet([Sample("0", Image.new("RGB", (8, 8)), "a cell")]).savefig(
            tmp_path / "sheet.png", bbox_inches="tight"
        )


def test_spread_takes_even_steps() -> None:
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert spread(range(3), 9) == [0, 1, 2]
    assert spread(range(3), 0) == []
