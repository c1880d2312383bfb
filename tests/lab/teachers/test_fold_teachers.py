"""Teachers of folds: none has seen what it teaches, all share one text space, and a world is made from them."""

import dataclasses

import pytest
import torch
from PIL import Image

from mcliplab.experiments import world
from mcliplab.experiments.folds import fold_of
from mcliplab.teachers import fit
from mcliplib.cli import main
from mcliplib.data import Sample
from mcliplib.reinforce.teachers import make_teacher
from mcliplib.reinforce.teachers.locked import load_trained
from mcliplib.train.data import load_reinforced

SAMPLES = [
    Sample(
        f"{style}-{number}",
        Image.new("RGB", (32, 32), (number * 30, 255 - number * 30, style * 60)),
        f"big thing {number}",
        {"keywords": [f"tag {number}"]},
    )
    for style in range(4)
    for number in range(8)
]


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A few pictures, and as little training as there can be."""
    for module in (fit, world):
        monkeypatch.setattr(module, "load_samples", lambda _: SAMPLES)
    settings = {name: dataclasses.replace(one, epochs=1, batch_size=8) for name, one in fit.SETTINGS.items()}
    monkeypatch.setattr(fit, "SETTINGS", settings)
    monkeypatch.setattr(fit, "TUNING", dataclasses.replace(fit.TUNING, epochs=1, batch_size=8, image_size=32))
    monkeypatch.setattr(fit, "ASKED_AT", 48)
    (tmp_path / "cache").mkdir()
    return tmp_path


@pytest.mark.slow
def test_folds_share_the_text_space_and_have_not_seen_their_own(quick, monkeypatch):
    learned = []

    def tuned(variant, text, heads, data, settings, progress):
        learned.append({one.key for one in data.samples})
        return tune(variant, text, heads, data, settings, progress)

    tune = fit.tune
    monkeypatch.setattr(fit, "tune", tuned)
    paths = fit.tune_teachers(quick, variants=["lite0"], folds=2, cache=quick / "cache")
    assert [path.name for path in paths] == ["fold-0.safetensors", "fold-1.safetensors"]
    for fold, keys in enumerate(learned):
        assert keys == {one.key for one in SAMPLES if fold_of(one.key, 2) != fold}
    first, second = (make_teacher(f"tuned-lite0:{path}") for path in paths)
    texts, pictures = ["a red flag", "a boat"], [one.image for one in SAMPLES[:4]]
    assert torch.equal(first.encode_texts(texts), second.encode_texts(texts))
    assert not torch.allclose(first.encode_images(pictures), second.encode_images(pictures), atol=1e-3)
    again = fit.tune_teachers(quick, variants=["lite0"], folds=2, cache=quick / "cache")
    assert (again, len(learned)) == (paths, 2), "what is there is not made again"

    command = ["experiment", "world", "--names", "0.5", "--teachers", str(quick), "--output", str(quick / "world")]
    assert main(command) == 0
    made = load_reinforced([str(quick / "world" / "reinforced" / f"fold-{fold}") for fold in range(2)])
    assert {one.key for one in made.samples} == {one.key for one in SAMPLES}


@pytest.mark.slow
def test_a_teacher_tuned_on_everything_has_a_text_head(quick):
    (path,) = fit.tune_teachers(quick, variants=["lite2"], cache=quick / "cache")
    assert path.name == "tuned-lite2.safetensors"
    found = load_trained(path)
    assert (found.heads.text is None, found.tower is None, found.about["image_size"]) == (False, False, "48")


def test_what_is_missing_is_said(tmp_path, capsys):
    assert main(["experiment", "world", "--names", "1", "--teachers", str(tmp_path), "--output", "x"]) == 2
    assert "`mcliplib teachers tune --folds 4` makes them" in capsys.readouterr().err
    assert main(["teachers", "tune", "--folds", "4"]) == 2
    assert "name one with --output" in capsys.readouterr().err
    assert main(["teachers", "tune", "--folds", "1", "--output", str(tmp_path)]) == 2
    assert "--folds must be from 2 to 64" in capsys.readouterr().err
