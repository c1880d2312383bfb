"""The evaluation suite: every task of the evaluation sets, read from their cards."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mcliplib.data import Sample, get_card, list_datasets, load_samples
from mcliplib.errors import UserError
from mcliplib.evaluate.features import Encoder, ModelEncoder
from mcliplib.evaluate.scores import (
    DRAWING_TEMPLATES,
    PHOTO_TEMPLATES,
    Retrieval,
    Score,
    ZeroShot,
    class_features,
    retrieval,
    zero_shot,
)
from mcliplib.model import MobileCLIP

SUITES = ("mini",)


def suite_datasets(suite: str) -> list[str]:
    """The evaluation sets of a suite: "mini" is all of them; a set's own name is a suite of one.

    Raises:
        UserError: neither a suite nor a data set with tasks.
    """
    if suite in SUITES:
        return list_datasets("eval")
    if not get_card(suite)["tasks"]:
        raise UserError(f"{suite} has no evaluation task; those that have: {', '.join(list_datasets('eval'))}")
    return [suite]


def evaluate_suite(
    model: MobileCLIP | Encoder, suite: str = "mini", progress: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, Score]]:
    """Scores of every task in a suite, by "set/task" and metric ("top1", "image_to_text_r1", ...).

    Args:
        model: a model in eval mode, or another encoder (a teacher).
        suite: "mini", or the name of one data set.
        progress: told each set's name before it is evaluated.

    Raises:
        UserError: neither a suite nor a data set.
    """
    scores = {}
    for name in suite_datasets(suite):
        progress(name)
        for task, result in evaluate_dataset(model, name).items():
            scores[f"{name}/{task}"] = metrics(result)
    return scores


def evaluate_dataset(model: MobileCLIP | Encoder, name: str) -> dict[str, ZeroShot | Retrieval]:
    """The results of every task of one set."""
    card, samples = get_card(name), load_samples(name)
    encoder = ModelEncoder(model) if isinstance(model, MobileCLIP) else model
    features = encoder.encode_images([sample.image for sample in samples])
    return {task: _evaluate(encoder, spec, samples, features) for task, spec in card["tasks"].items()}


def metrics(result: ZeroShot | Retrieval) -> dict[str, Score]:
    """A result's scores by flat names: top1, top5; image_to_text_r1, ..., text_to_image_r10."""
    if isinstance(result, ZeroShot):
        return {"top1": result.top1} if result.classes <= 5 else {"top1": result.top1, "top5": result.top5}
    ways = result._asdict().items()
    return {f"{way}_r{depth}": value for way, recalls in ways for depth, value in recalls.items()}


def _evaluate(
    encoder: Encoder, spec: dict[str, Any], samples: Sequence[Sample], features: Tensor
) -> ZeroShot | Retrieval:
    if spec["kind"] == "retrieval":
        return caption_retrieval(encoder, samples, features)
    classes = spec["classes"]
    labels = torch.tensor([classes.index(sample.meta[spec["label_field"]]) for sample in samples])
    templates = PHOTO_TEMPLATES if spec["photos"] else DRAWING_TEMPLATES
    return zero_shot(features, class_features(encoder, classes, templates), labels)


def caption_retrieval(encoder: Encoder, samples: Sequence[Sample], features: Tensor | None = None) -> Retrieval:
    """Retrieval between pictures and their captions; a caption that several pictures share is one text.

    Args:
        encoder: of the texts, and of the pictures where their features are not given.
        samples: pictures with captions.
        features: [N, D] of the pictures.
    """
    if features is None:
        features = encoder.encode_images([sample.image for sample in samples])
    return captions_retrieval(encoder, features, [[sample.caption] for sample in samples])


def captions_and_pairs(samples: Sequence[Sample]) -> tuple[list[str], Tensor]:
    """The different captions, and [N, 2]: which picture has which."""
    return _texts_and_pairs([[sample.caption] for sample in samples])


def captions_retrieval(encoder: Encoder, features: Tensor, captions: Sequence[Sequence[str]]) -> Retrieval:
    """Retrieval between pictures and their captions, where a picture may have several: each of them is right.

    Args:
        encoder: of the texts.
        features: [N, D] of the pictures; no picture twice, or one of them always hides the other.
        captions: of each picture, at least one.
    """
    texts, pairs = _texts_and_pairs(captions)
    return retrieval(features, encoder.encode_texts(texts), pairs)


def _texts_and_pairs(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    texts = list(dict.fromkeys(text for some in captions for text in some))
    index = {text: i for i, text in enumerate(texts)}
    return texts, torch.tensor([[i, index[text]] for i, some in enumerate(captions) for text in some])


def score_values(scores: Mapping[str, Mapping[str, Score]]) -> dict[str, dict[str, dict[str, float]]]:
    """A suite's scores as plain numbers, for a results file."""
    return {task: {metric: value.record() for metric, value in row.items()} for task, row in scores.items()}
