"""The drawing of the two towers: every part is there, in words, and fits on a phone."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

import mcliplib
from mcliplab.figures import draw_towers
from mcliplab.figures.towers import KINDS, image_boxes, text_boxes
from mcliplib.presets import PRESETS
from mcliplib.viz import WIDTH, use_style

matplotlib.use("Agg")


@pytest.mark.parametrize("name", mcliplib.list_models())
def test_towers_fit_the_page_and_no_text_leaves_its_box(name: str) -> None:
    with plt.rc_context():
        use_style()
        figure = draw_towers(PRESETS[name])
        figure.draw_without_rendering()
        assert figure.get_figwidth() <= WIDTH
        legend = figure.legends[0].get_window_extent()
        assert figure.bbox.x0 <= legend.x0 <= legend.x1 <= figure.bbox.x1
        for axis in figure.axes:
            boxes, texts = axis.patches, [text for text in axis.texts if text.get_text()]
            assert len(boxes) == len(texts)
            for box, text in zip(boxes, texts, strict=True):
                outer, inner = box.get_window_extent(), text.get_window_extent()
                assert outer.x0 <= inner.x0 <= inner.x1 <= outer.x1, text.get_text()
                assert outer.y0 <= inner.y0 <= inner.y1 <= outer.y1, text.get_text()
                assert text.get_fontsize() >= 9
        plt.close(figure)


def test_the_legend_names_every_colour() -> None:
    config = PRESETS["mobileclip_s0"]
    figure = draw_towers(config)
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    plt.close(figure)
    colours = {box.colour for box in (*image_boxes(config), *text_boxes(config))} - {"white"}
    assert shown == {KINDS[colour] for colour in colours}


def test_shapes_come_from_the_settings() -> None:
    config = PRESETS["mobileclip_s0"]
    assert [box.shape for box in image_boxes(config)][2:6] == [
        "64 × 64 × 64",
        "128 × 32 × 32",
        "256 × 16 × 16",
        "512 × 8 × 8",
    ]
    assert [box.title for box in text_boxes(config)].count("RepMixer along tokens") == 2
    assert "12 × transformer" in [box.title for box in text_boxes(PRESETS["mobileclip_b"])]
