"""Zero-shot classification and retrieval from features.

In zero-shot classification a class is a text, and a picture belongs to the nearest one (CLIP, section 3.1). Retrieval
finds the text of a picture among all texts, and the picture of a text among all pictures. Both are read from the rank
of the first right answer. Every score has an interval (`mcliplib.evaluate.intervals`) and remembers each query's hit.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mcliplib.evaluate.features import Encoder, ModelEncoder
from mcliplib.evaluate.intervals import DRAWS, Score, interval, mean_per_class, resampled, score, sums_per_group
from mcliplib.model import MobileCLIP

PHOTO_TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}.", "the {}.")
DRAWING_TEMPLATES = ("{}", "a drawing of a {}.", "a picture of a {}.", "the {}.")
DEPTHS = (1, 5, 10)
_ROWS = 8192  # of a similarity matrix in memory at a time


def first_right_rank(
    similarity: Float[Tensor, "queries candidates"], right: Bool[Tensor, "queries candidates"]
) -> Int[Tensor, " queries"]:
    """How many wrong candidates stand before each query's best right one; 0 is a hit at 1.

    A wrong candidate with the same similarity counts as standing before it: a model that maps everything to one
    point scores 0, not 1. So does a similarity that is no number.
    """
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return (~(similarity < best) & ~right).sum(dim=1)


class ZeroShot(NamedTuple):
    """Shares of pictures whose class is the nearest, or among the five nearest."""

    top1: Score
    top5: Score
    classes: int  # with five or fewer, top5 says nothing

    @property
    def mean_per_class(self) -> Score:
        """Top-1 with equal weight for each class that occurs (mean per class recall)."""
        assert self.top1.hits is not None
        assert self.top1.groups is not None
        return mean_per_class(self.top1.hits, self.top1.groups)


def zero_shot(image_features: Tensor, class_features: Tensor, labels: Tensor) -> ZeroShot:
    """Top-1 and top-5 accuracy.

    Args:
        image_features: [N, D], normalised.
        class_features: [C, D], normalised (`class_features`).
        labels: [N], index of each picture's class.

    Raises:
        ValueError: shapes that do not fit, or a label outside the classes.
    """
    labels = torch.as_tensor(labels)
    if image_features.dim() != 2 or class_features.dim() != 2 or image_features.shape[1] != class_features.shape[1]:
        raise ValueError(f"features must be [N, D] and [C, D], got {list(image_features.shape)} "
                         f"and {list(class_features.shape)}")  # fmt: skip
    if labels.shape != image_features.shape[:1]:
        raise ValueError(f"labels must be [{len(image_features)}], got {list(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_features):
        raise ValueError(f"labels must be in 0..{len(class_features) - 1}")
    right = torch.arange(len(class_features))
    ranks = _ranks(image_features, class_features, lambda rows: labels[rows, None] == right)
    return ZeroShot(score(ranks < 1, labels), score(ranks < 5, labels), len(class_features))


def nearest_class(image_features: Float[Tensor, "n d"], class_features: Float[Tensor, "c d"]) -> Int[Tensor, " n"]:
    """The class of each picture, from 0 on; -1 where none is the nearest: several are as near, or similarity is NaN."""
    found = []
    for part in image_features.split(_ROWS):
        similarity = part @ class_features.T
        best, nearest = similarity.max(dim=1)
        found.append(nearest.where((similarity >= best[:, None]).sum(1) == 1, -1))
    return torch.cat(found)


def constant_answer(labels: Int[Tensor, " n"]) -> Score:
    """The share that always answering the most frequent class scores: a model below it has learned nothing useful."""
    return score(labels == labels.mode().values, labels)


def macro_f1(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> Score:
    """The mean F1 of the classes that occur in `labels` (WILDS, 2012.07421): a class is to be found, and only it.

    Args:
        predicted: `nearest_class`.
        labels: each picture's class.
    """
    kinds, counts = torch.unique(torch.stack([labels, predicted], 1), dim=0, return_counts=True)
    size = int(kinds.max()) + 1
    right, answered = kinds[:, 0] == kinds[:, 1], kinds[:, 1] >= 0

    def statistic(counts: Tensor) -> Tensor:
        there = sums_per_group(counts, kinds[:, 0], size)
        found = sums_per_group(counts[:, right], kinds[right, 0], size)
        claimed = sums_per_group(counts[:, answered], kinds[answered, 1], size)
        return (2 * found / (there + claimed)).where(there > 0, torch.nan).nanmean(1)

    low, high = interval(statistic(resampled(counts, DRAWS, seed=0)))
    return Score(statistic(counts[None].double()).item(), low, high, len(labels))


def jaccard(similarities: Sequence[Float[Tensor, " _"]], right: Sequence[Bool[Tensor, " _"]]) -> Score:
    """How well the k most similar candidates are the k right ones, averaged over queries (WinoGAViL, 2207.12576).

    Args:
        similarities: of each query to its candidates.
        right: which candidates belong to it; at least one.

    Returns:
        The mean Jaccard index, shared / (chosen or right). Of two as similar candidates, the wrong one is chosen first.
    """
    values = []
    for similarity, belongs in zip(similarities, right, strict=True):
        k = int(belongs.sum())
        if k == 0:
            raise ValueError("a query must have a right candidate")
        ranked = similarity[belongs].sort(descending=True).values
        before = (~(similarity[~belongs] < ranked[:, None])).sum(dim=1)
        shared = int((before + torch.arange(k) < k).sum())
        values.append(shared / (2 * k - shared))
    return score(torch.tensor(values, dtype=torch.float64))


def class_features(
    model: MobileCLIP | Encoder, classes: Sequence[str], templates: Sequence[str] = PHOTO_TEMPLATES
) -> Tensor:
    """The classifier that the text tower makes: a class is the mean of its prompts' features, normalised again.

    Args:
        model: a model in eval mode, or another encoder.
        classes: names, put into each template's braces.
        templates: prompts; the name's place is `{}`, or `{c}` as in CLIP_benchmark's files.

    Returns:
        [C, D].
    """
    encoder = ModelEncoder(model) if isinstance(model, MobileCLIP) else model
    features = encoder.encode_texts([prompt(template, name) for name in classes for template in templates])
    mean = features.reshape(len(classes), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def prompt(template: str, name: str) -> str:
    """The template with a class's name in its place, `{}` or `{c}`."""
    return re.sub(r"\{c?\}", lambda _: name, template)  # not `format`, with which a template can read attributes


class Retrieval(NamedTuple):
    """Recall at 1, 5 and 10 both ways: the share of queries with a right answer among the first k."""

    image_to_text: dict[int, Score]
    text_to_image: dict[int, Score]


def retrieval(image_features: Tensor, text_features: Tensor, pairs: Tensor | None = None) -> Retrieval:
    """Recall at k both ways.

    Args:
        image_features: [N, D], normalised.
        text_features: [M, D], normalised.
        pairs: [P, 2] (image index, text index) that belong together; an image may have several texts and the other
            way round. None: row i belongs to row i.

    Raises:
        ValueError: shapes that do not fit, or an image or text without a pair.
    """
    if pairs is None:
        pairs = torch.arange(len(image_features)).repeat(2, 1).T
    pairs = torch.as_tensor(pairs)
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must be [P, 2] indices, got {list(pairs.shape)}")
    right = torch.zeros(len(image_features), len(text_features), dtype=torch.bool)
    if len(pairs) and (int(pairs.min()) < 0 or (pairs.amax(dim=0) >= torch.tensor(right.shape)).any()):
        raise ValueError(f"pairs point outside the {right.shape[0]} images and {right.shape[1]} texts")
    right[pairs[:, 0], pairs[:, 1]] = True
    if not (right.any(dim=0).all() and right.any(dim=1).all()):
        raise ValueError("every image and every text must be in at least one pair")
    return Retrieval(
        _recalls(image_features, text_features, lambda rows: right[rows]),
        _recalls(text_features, image_features, lambda rows: right.T[rows]),
    )


def _recalls(queries: Tensor, candidates: Tensor, right: Callable[[Tensor], Tensor]) -> dict[int, Score]:
    ranks = _ranks(queries, candidates, right)
    return {depth: score(ranks < depth) for depth in DEPTHS}


def _ranks(queries: Tensor, candidates: Tensor, right: Callable[[Tensor], Tensor]) -> Tensor:
    """`first_right_rank` of all queries, some rows at a time; `right` gives the right candidates of the named rows."""
    parts = torch.arange(len(queries)).split(_ROWS)
    return torch.cat([first_right_rank(queries[rows] @ candidates.T, right(rows)) for rows in parts])
