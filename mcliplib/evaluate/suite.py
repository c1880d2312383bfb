"""The evaluation suite: every task of the evaluation sets, read from their cards."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mcliplib.data import Sample, get_card, list_datasets, load_samples
from mcliplib.errors import UserError
from mcliplib.evaluate.bootstrap import Score
from mcliplib.evaluate.retrieval import Retrieval, retrieval
from mcliplib.evaluate.zero_shot import DRAWING_TEMPLATES, PHOTO_TEMPLATES, ZeroShot, class_features, zero_shot
from mcliplib.factory import get_preprocess, get_tokenizer
from mcliplib.model import MobileCLIP

BATCH = 128
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
    model: MobileCLIP, suite: str = "mini", progress: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, Score]]:
    """Scores of every task in a suite, by "set/task" and metric ("top1", "image_to_text_r1", ...).

    Args:
        model: in eval mode.
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


def evaluate_dataset(model: MobileCLIP, name: str) -> dict[str, ZeroShot | Retrieval]:
    """The results of every task of one set."""
    card, samples = get_card(name), load_samples(name)
    features = image_features(model, [sample.image for sample in samples])
    return {task: _evaluate(model, spec, samples, features) for task, spec in card["tasks"].items()}


@torch.inference_mode()
def image_features(model: MobileCLIP, images: Sequence[Image.Image]) -> Tensor:
    """Normalised features [N, D] of PIL images, preprocessed for the model."""
    preprocess = get_preprocess(model)
    batches = (torch.stack([preprocess(image) for image in part]) for part in _chunks(images))
    return torch.cat([model.encode_image(pixels, normalize=True) for pixels in batches])


@torch.inference_mode()
def text_features(model: MobileCLIP, texts: Sequence[str]) -> Tensor:
    """Normalised features [M, D] of texts, tokenized for the model."""
    tokens = get_tokenizer(model)(texts)
    return torch.cat([model.encode_text(part, normalize=True) for part in tokens.split(BATCH)])


def metrics(result: ZeroShot | Retrieval) -> dict[str, Score]:
    """A result's scores by flat names: top1, top5; image_to_text_r1, ..., text_to_image_r10."""
    if isinstance(result, ZeroShot):
        return {"top1": result.top1} if result.classes <= 5 else {"top1": result.top1, "top5": result.top5}
    ways = result._asdict().items()
    return {f"{way}_r{depth}": value for way, recalls in ways for depth, value in recalls.items()}


def _evaluate(
    model: MobileCLIP, spec: dict[str, Any], samples: Sequence[Sample], features: Tensor
) -> ZeroShot | Retrieval:
    if spec["kind"] == "retrieval":
        texts = list(dict.fromkeys(sample.caption for sample in samples))  # a shared caption is one text
        index = {text: i for i, text in enumerate(texts)}
        pairs = torch.tensor([[i, index[sample.caption]] for i, sample in enumerate(samples)])
        return retrieval(features, text_features(model, texts), pairs)
    classes = spec["classes"]
    labels = torch.tensor([classes.index(sample.meta[spec["label_field"]]) for sample in samples])
    templates = PHOTO_TEMPLATES if spec["photos"] else DRAWING_TEMPLATES
    return zero_shot(features, class_features(model, get_tokenizer(model), classes, templates), labels)


def _chunks(images: Sequence[Image.Image]) -> Iterator[Sequence[Image.Image]]:
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))
