"""The look of figures, and the slider that works without a kernel."""

import json
import re

import matplotlib
import matplotlib.pyplot as plt
import pytest

from mcliplab.figures.slider import frames_slider
from mcliplab.figures.table import html_table
from mcliplib.errors import UserError
from mcliplib.viz.style import PALETTE, use_style

matplotlib.use("Agg")
PNG = b"\x89PNG\r\n\x1a\n"


def figure() -> plt.Figure:
    drawn, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, 1])
    return drawn


def test_slider_shows_figures_and_closes_them() -> None:
    drawn = [figure(), figure()]
    page = frames_slider(drawn, ["a rising line", "the same line"], "step").data
    assert page.count("data:image/png;base64,") == 3, "two frames, and the first one shown"
    assert not plt.get_fignums()
    assert 'alt="a rising line"' in page
    assert 'max="1" value="0"' in page


def test_slider_refers_to_nothing_outside_itself() -> None:
    page = frames_slider([PNG], ["one"], "step").data
    assert not re.search(r"https?://|src=\"(?!data:)", page)


def test_slider_can_be_used_without_seeing_it() -> None:
    page = frames_slider([PNG, PNG], ["one", "two"], "epoch", captions=["epoch 1", "epoch 9"], start=1).data
    name = re.search(r'<input id="([^"]+)" type="range"', page)
    assert name
    assert re.search(f'<label for="{name[1]}"[^>]*>epoch', page)
    assert 'aria-valuetext="epoch 9"' in page
    assert 'alt="two"' in page


def test_sliders_on_one_page_do_not_share_names() -> None:
    pages = [frames_slider([PNG], ["one"], "step").data for _ in range(2)]
    names = [set(re.findall(r' id="([^"]+)"', page)) for page in pages]
    assert not names[0] & names[1]


def test_texts_cannot_break_out_of_the_page() -> None:
    evil = '</script><b>"x"'
    page = frames_slider([PNG], [evil], evil, captions=[evil]).data
    assert "<b>" not in page
    frames = re.search(r"const frames = (\[.*?\]), at", page)
    assert frames
    assert json.loads(frames[1])[0][1] == evil


@pytest.mark.parametrize(
    ("frames", "alts", "options", "message"),
    [
        ([], [], {}, "at least one frame"),
        ([PNG, PNG], ["one"], {}, "2 frames, 1 texts"),
        ([PNG], [" "], {}, "needs an alt text"),
        ([PNG], ["one"], {"captions": []}, "1 frames need 1 captions"),
        ([PNG], ["one"], {"start": 1}, "start must be from 0 to 0"),
        ([b"GIF89a"], ["one"], {}, "PNG"),
    ],
)
def test_bad_frames(frames: list[bytes], alts: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        frames_slider(frames, alts, "step", **options)


def test_style_uses_the_palette_on_a_white_card() -> None:
    with plt.rc_context():
        use_style()
        cycle = plt.rcParams["axes.prop_cycle"].by_key()
        assert cycle["color"] == list(PALETTE.values())
        assert len(set(zip(cycle["color"], cycle["linestyle"], strict=True))) == len(PALETTE)
        assert plt.rcParams["savefig.facecolor"] == "white"


def test_a_table_names_its_rows_and_escapes_its_cells():
    page = html_table(["model", "size"], [["a<b", 3]], "Sizes & more").data
    assert re.search('<th scope="row">a&lt;b</th><td[^>]*>3</td>', page)
    assert "<caption>Sizes &amp; more</caption>" in page
    with pytest.raises(UserError, match="2 columns has a row of 1 cells"):
        html_table(["a", "b"], [["x"]], "")


def test_a_tables_numbers_are_aligned_and_end_their_lines_before_brackets():
    rows = [["a", "12 layers", "1.7% (1.6–1.8%)", "4.6e-04"], ["b", "none", "at most 1.0 to at least 3.0", "–"]]
    page = html_table(["name", "text", "the teachers' share", "error"], rows, "It's one").data
    aligned = ' style="text-align:right"'
    assert f'<th scope="col">text</th><th scope="col"{aligned}>the teachers’ share</th>' in page
    assert "<td>12 layers</td>" in page
    assert f"<td{aligned}>1.7% (1.6–\u20601.8%)</td><td{aligned}>4.6e-04</td>" in page
    assert f"<td{aligned}>at\u00a0most\u00a01.0 to\u00a0at\u00a0least\u00a03.0</td><td{aligned}>–\u2060</td>" in page
    assert "<caption>It’s one</caption>" in page


def test_a_table_may_have_no_rows():
    assert "<tbody></tbody>" in html_table(["name", "size"], [], "None").data
