"""The suite asks each set what its cards say it can be asked."""

import pytest
import torch

import mcliplib
from mcliplib.data import get_card, list_datasets, load_samples
from mcliplib.errors import UserError
from mcliplib.evaluate import retrieval, suite
from mcliplib.evaluate.scores import DRAWING_TEMPLATES, PHOTO_TEMPLATES, zero_shot


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


def test_the_constant_answer_is_the_best_that_an_encoder_blind_to_pictures_scores():
    name, task = "gcompris-activities", "activities"
    spec, samples = get_card(name)["tasks"][task], load_samples(name)
    classes = torch.eye(len(spec["classes"]))
    labels = torch.tensor([spec["classes"].index(sample.meta[spec["label_field"]]) for sample in samples])
    blind = [zero_shot(one.expand(len(labels), -1), classes, labels).top1 for one in classes]
    assert suite.constant_answer(f"{name}/{task}") == pytest.approx(max(blind))


def test_the_constant_answer_of_retrieval_is_one_caption_and_one_picture():
    captions = [sample.caption for sample in load_samples("tuxpaint-heldout")]
    texts = list(dict.fromkeys(captions))
    pairs = torch.tensor([[i, texts.index(caption)] for i, caption in enumerate(captions)])
    to_text = [retrieval(one.expand(len(captions), -1), torch.eye(len(texts)), pairs) for one in torch.eye(len(texts))]
    to_picture = retrieval(torch.eye(len(captions)), torch.eye(len(captions))[:1].expand(len(texts), -1), pairs)
    blind = max(one.image_to_text[1] for one in to_text) + to_picture.text_to_image[1]
    assert suite.constant_answer("tuxpaint-heldout/retrieval") == pytest.approx(blind / 2)


def test_tasks_of_few_or_uneven_classes_are_not_telling():
    tasks = [f"{name}/{task}" for name in list_datasets("eval") for task in get_card(name)["tasks"]]
    few = {"art4apps/categories", "gcompris-activities/activities", "gcompris-activities/objects"}
    assert {task for task in tasks if not suite.is_non_degenerate(task)} == few


def test_a_task_that_a_set_does_not_have_is_refused_with_those_that_it_has():
    with pytest.raises(UserError, match="gcompris-activities has no task 'sleeping'; there is activities"):
        suite.constant_answer("gcompris-activities/sleeping")
