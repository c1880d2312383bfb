"""Every released model has published numbers; the picture holds them all."""

import json

import matplotlib.pyplot as plt
import pytest

from mcliplab.benchmarks import released
from mcliplab.figures import draw_accuracy_latency
from mcliplib.cli import main
from mcliplib.evaluate.datacomp import SUITE, published_results
from mcliplib.presets import list_models

OURS = {"mobileclip_nano", "mobileclip_pico"}


def test_every_released_model_has_its_numbers():
    published = released.published()
    assert set(published) == (set(list_models()) - OURS) | set(released.OPEN_CLIP)
    assert released.models() == list(published)


def test_the_averages_are_those_of_the_published_table():
    for name, row in released.published().items():
        if name not in released.OPEN_CLIP:
            table = published_results(name)
            mean = sum(table[task.key] for task in SUITE) / len(SUITE)
            assert row["average38"] == pytest.approx(100 * mean, abs=0.06)
            assert row["imagenet"] == pytest.approx(100 * table["imagenet1k"], abs=0.06)


def test_the_picture_names_every_model():
    measured = {name: {tower: {"ms": {"median": 10.0}} for tower in ("image", "text")} for name in released.models()}
    figure = draw_accuracy_latency(measured, released.published())
    for axis in figure.axes:
        shown = [text.get_text() for text in axis.texts]
        assert len(shown) == len(measured)
        assert "B/16" in shown
    plt.close(figure)


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    monkeypatch.setattr(released, "models", lambda: ["mobileclip_s0", "ViT-B-32"])
    command = ["benchmark", "released", "--rounds", "2", "--threads", "1", "--record", "released-test"]
    assert main([*command, "--picture", str(tmp_path / "picture.svg")]) == 0
    assert "mobileclip_s0" in capsys.readouterr().out
    values = json.loads((tmp_path / "released-test.json").read_text())["values"]
    assert set(values) == {"mobileclip_s0", "ViT-B-32"}
    assert all(row[tower]["ms"]["p90"] > 0 for row in values.values() for tower in ("image", "text"))
    assert (tmp_path / "picture.svg").read_text().count("<svg") == 1
