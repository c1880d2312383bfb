"""The suite asks each set what its cards say it can be asked."""

import pytest
import torch

import mcliplib
from mcliplib.data import get_card, list_datasets
from mcliplib.evaluate import suite
from mcliplib.evaluate.scores import DRAWING_TEMPLATES, PHOTO_TEMPLATES


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mcliplib.create_model("mobileclip_nano", vocab=mcliplib.restrict_vocab([]), image_size=32)


@pytest.mark.parametrize(
    ("name", "templates"), [("gcompris-animals", PHOTO_TEMPLATES), ("art4apps", DRAWING_TEMPLATES)]
)
def test_pictures_are_called_what_they_are(model, monkeypatch, name, templates):
    used = []

    def spy(encoder, classes, given):
        used.append(given)
        return torch.eye(len(classes), model.config.embed_dim) if len(classes) < 256 else torch.ones(len(classes), 256)

    monkeypatch.setattr(suite, "class_features", spy)
    suite.evaluate_dataset(model, name)
    assert set(used) == {templates}


def test_every_task_of_the_evaluation_sets_has_scores(model):
    scores = mcliplib.evaluate.evaluate_suite(model)
    expected = {f"{name}/{task}" for name in list_datasets("eval") for task in get_card(name)["tasks"]}
    assert set(scores) == expected
    assert "top5" not in scores["gcompris-activities/activities"], "five answers out of four classes"
    assert all(0 <= score <= 1 for row in scores.values() for score in row.values())
