"""One answer for everything: what it scores, and where that is too much for a score to say anything."""

import pytest
import torch

from mcliplab.experiments.chance import constant_answer, is_non_degenerate
from mcliplib.data import get_card, list_datasets, load_samples
from mcliplib.errors import UserError
from mcliplib.evaluate import retrieval, zero_shot


def test_the_constant_answer_is_the_best_that_an_encoder_blind_to_pictures_scores():
    name, task = "gcompris-activities", "activities"
    spec, samples = get_card(name)["tasks"][task], load_samples(name)
    classes = torch.eye(len(spec["classes"]))
    labels = torch.tensor([spec["classes"].index(sample.meta[spec["label_field"]]) for sample in samples])
    blind = [zero_shot(one.expand(len(labels), -1), classes, labels).top1 for one in classes]
    assert constant_answer(f"{name}/{task}") == pytest.approx(max(blind))


def test_the_constant_answer_of_retrieval_is_one_caption_and_one_picture():
    captions = [sample.caption for sample in load_samples("tuxpaint-heldout")]
    texts = list(dict.fromkeys(captions))
    pairs = torch.tensor([[i, texts.index(caption)] for i, caption in enumerate(captions)])
    to_text = [retrieval(one.expand(len(captions), -1), torch.eye(len(texts)), pairs) for one in torch.eye(len(texts))]
    to_picture = retrieval(torch.eye(len(captions)), torch.eye(len(captions))[:1].expand(len(texts), -1), pairs)
    blind = max(one.image_to_text[1] for one in to_text) + to_picture.text_to_image[1]
    assert constant_answer("tuxpaint-heldout/retrieval") == pytest.approx(blind / 2)


def test_five_constant_answers_are_the_five_most_frequent_ones():
    name, task = "gcompris-activities", "objects"
    spec, samples = get_card(name)["tasks"][task], load_samples(name)
    labels = torch.tensor([spec["classes"].index(sample.meta[spec["label_field"]]) for sample in samples])
    counts = torch.bincount(labels, minlength=len(spec["classes"])).float()
    blind = zero_shot(counts.expand(len(labels), -1), torch.eye(len(counts)), labels)
    assert constant_answer(f"{name}/{task}", 5) == pytest.approx(blind.top5)
    assert constant_answer("tuxpaint-heldout/retrieval", 10**6) == 1


def test_tasks_of_few_or_uneven_classes_are_degenerate():
    tasks = [f"{name}/{task}" for name in list_datasets("eval") for task in get_card(name)["tasks"]]
    few = {"art4apps/categories", "gcompris-activities/activities", "gcompris-activities/objects"}
    assert {task for task in tasks if not is_non_degenerate(task)} == few


def test_a_task_that_a_set_does_not_have_is_refused_with_those_that_it_has():
    with pytest.raises(UserError, match="gcompris-activities has no task 'sleeping'; there is activities"):
        constant_answer("gcompris-activities/sleeping")
