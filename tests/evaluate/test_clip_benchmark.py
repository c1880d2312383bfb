"""Our scores are the field's: CLIP_benchmark's own functions, given the same features, find the same numbers.

Where candidates are equally similar, CLIP_benchmark takes whichever its sort puts first; ours counts them as misses.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

import mcliplib
from mcliplib.data import get_card, load_samples
from mcliplib.evaluate import class_features, image_features, retrieval, text_features, zero_shot
from mcliplib.evaluate.scores import prompt


@pytest.fixture(autouse=True)
def with_numpy_of_today(monkeypatch):
    """CLIP_benchmark makes a float of an array of one number, which NumPy refuses since 2.4."""
    one_number = lambda value: float(value.item() if isinstance(value, np.ndarray) else value)  # noqa: E731
    monkeypatch.setattr(zeroshot_classification, "float", one_number, raising=False)


class Lookup:
    """A model whose pictures and texts are rows of two tables."""

    def __init__(self, images, texts):
        self.images, self.texts = images, texts

    def encode_image(self, rows):
        return self.images[rows]

    def encode_text(self, rows):
        return self.texts[rows]


class Batches(list):
    """A loader: pairs of pictures and labels, or of pictures and their captions."""

    def __init__(self, pairs, classes=()):
        super().__init__(pairs)
        self.dataset = SimpleNamespace(classes=classes)


def field_zero_shot(images, classes, labels):
    names = [str(at) for at in range(len(classes))]
    return zeroshot_classification.evaluate(
        Lookup(images, classes),
        Batches([(part, labels[part]) for part in torch.arange(len(images)).split(7)], names),
        lambda texts: torch.tensor([int(text) for text in texts]),
        names,
        ["{c}"],
        "cpu",
        amp=False,
    )


def field_retrieval(images, texts, owners, depths):
    captions = [[str(at) for at in (owners == image).nonzero()[:, 0].tolist()] for image in range(len(images))]
    parts = torch.arange(len(images)).split(7)
    return zeroshot_retrieval.evaluate(
        Lookup(images, texts),
        Batches([(part, [captions[image] for image in part.tolist()]) for part in parts]),
        lambda texts: torch.tensor([int(text) for text in texts]),
        "cpu",
        amp=False,
        recall_k_list=depths,
    )


def features(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(size, 6, generator=generator), dim=-1) for size in sizes]


def int8(features, levels=127):
    """As a store of one byte a number keeps them: many similarities become equal."""
    return (features * levels).round().clamp(-levels, levels)


@given(st.integers(5, 12), st.integers(1, 60), st.integers(0, 10_000))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_zero_shot_is_the_fields(classes, n, seed):
    """Over classes of unequal size, some of them empty."""
    images, texts = features(seed, n, classes)
    labels = (torch.rand(n, generator=torch.Generator().manual_seed(seed)) ** 2 * classes).long()
    ours, theirs = zero_shot(images, texts, labels), field_zero_shot(images, texts, labels)
    assert ours.top1 == pytest.approx(theirs["acc1"])
    assert ours.top5 == pytest.approx(theirs["acc5"])
    assert ours.mean_per_class == pytest.approx(theirs["mean_per_class_recall"])


def test_many_rows_are_the_fields_too():
    """More than are in memory at a time."""
    images, texts = features(1, 9000, 40)
    labels = torch.arange(9000) % 37
    ours, theirs = zero_shot(images, texts, labels), field_zero_shot(images, texts, labels)
    assert ours.top5 == pytest.approx(theirs["acc5"])
    assert ours.mean_per_class == pytest.approx(theirs["mean_per_class_recall"])


@given(st.lists(st.integers(1, 6), min_size=10, max_size=30), st.integers(0, 10_000))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_retrieval_is_the_fields(captions, seed):
    """Several captions a picture: a picture is found by each of them, and finds any of them."""
    owners = torch.arange(len(captions)).repeat_interleave(torch.tensor(captions))
    images, texts = features(seed, len(captions), len(owners))
    ours = retrieval(images, texts, torch.stack([owners, torch.arange(len(owners))], 1))
    theirs = field_retrieval(images, texts, owners, [1, 5, 10])
    for depth in (1, 5, 10):
        assert ours.text_to_image[depth] == pytest.approx(theirs[f"image_retrieval_recall@{depth}"])
        assert ours.image_to_text[depth] == pytest.approx(theirs[f"text_retrieval_recall@{depth}"])


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ties_never_help(seed):
    """Features of four halves and two zeros: similarities are quarters, without rounding, and most are equal."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(size, 6, generator=generator).sign() for size in (30, 40))
    for part in (images, texts):
        part.scatter_(1, torch.rand(part.shape, generator=generator).topk(2).indices, 0)
    labels = torch.arange(30) % 7
    ours, theirs = (
        zero_shot(normalize(images), normalize(texts[:9]), labels),
        field_zero_shot(images, texts[:9], labels),
    )
    assert ours.top1 <= theirs["acc1"] + 1e-9
    assert ours.top5 <= theirs["acc5"] + 1e-9
    assert ours.mean_per_class <= theirs["mean_per_class_recall"] + 1e-9
    owners = torch.arange(40) % 30
    pairs = torch.stack([owners, torch.arange(40)], 1)
    found = retrieval(normalize(images), normalize(texts), pairs)
    tool = field_retrieval(images, texts, owners, [1, 5, 10])
    for depth in (1, 5, 10):
        assert found.text_to_image[depth] <= tool[f"image_retrieval_recall@{depth}"] + 1e-6
        assert found.image_to_text[depth] <= tool[f"text_retrieval_recall@{depth}"] + 1e-6


@pytest.fixture(scope="module")
def student():
    return mcliplib.load_model("student")


def test_the_student_scores_the_same_in_both(student):
    """A real model on a real set: classes from prompts, and captions."""
    samples, card = load_samples("art4apps"), get_card("art4apps")
    for task in card["tasks"].values():
        labels = torch.tensor([task["classes"].index(one.meta[task["label_field"]]) for one in samples])
        images = image_features(student, [one.image for one in samples])
        templates = ("{c}", "a drawing of a {c}.")
        texts = [[prompt(template, name) for template in templates] for name in task["classes"]]
        table = text_features(student, [text for row in texts for text in row])
        index = {text: at for at, text in enumerate(text for row in texts for text in row)}
        theirs = zeroshot_classification.evaluate(
            Lookup(images, table),
            Batches([(torch.arange(len(images)), labels)], task["classes"]),
            lambda names, index=index: torch.tensor([index[name] for name in names]),
            task["classes"],
            list(templates),
            "cpu",
            amp=False,
        )
        ours = zero_shot(images, class_features(student, task["classes"], templates), labels)
        assert ours.top1 == pytest.approx(theirs["acc1"])
        assert ours.top5 == pytest.approx(theirs["acc5"])
        assert ours.mean_per_class == pytest.approx(theirs["mean_per_class_recall"])


def test_features_of_a_byte_cost_little(student):
    """What ties cost in earnest: the student's features of real pictures and captions, a byte a number."""
    samples = load_samples("emoji-fluent-unseen")
    images = int8(image_features(student, [one.image for one in samples]))
    texts = int8(text_features(student, [one.caption for one in samples]))
    ours = retrieval(normalize(images), normalize(texts))
    theirs = field_retrieval(images, texts, torch.arange(len(samples)), [1, 5, 10])
    for depth in (1, 5, 10):
        lost = theirs[f"image_retrieval_recall@{depth}"] - ours.text_to_image[depth]
        assert -1e-6 <= lost <= 0.01
