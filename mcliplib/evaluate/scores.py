"""Zero-shot classification and retrieval, with percentile bootstrap intervals: how far to trust a share of hits.

In zero-shot classification a class is a text, and a picture belongs to the nearest one (CLIP, section 3.1). Retrieval
finds the text of a picture among all texts, and the picture of a text among all pictures. Both are read from the rank
of the first right answer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mcliplib.evaluate.features import Encoder, ModelEncoder
from mcliplib.model import MobileCLIP

PHOTO_TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}.", "the {}.")
DRAWING_TEMPLATES = ("{}", "a drawing of a {}.", "a picture of a {}.", "the {}.")
DEPTHS = (1, 5, 10)


class Score(float):
    """A share of hits in [0, 1], with the ends of its 95% bootstrap interval and the number of trials.

    Behaves as its value: `score > 0.1`, `f"{score:.1%}"`.

    Attributes:
        low: lower end of the interval.
        high: upper end.
        n: trials.
    """

    low: float
    high: float
    n: int

    def __new__(cls, value: float, low: float, high: float, n: int) -> "Score":
        score = super().__new__(cls, value)
        score.low, score.high, score.n = low, high, n
        return score

    def __getnewargs__(self) -> tuple[float, float, float, int]:  # type: ignore[override]
        return float(self), self.low, self.high, self.n

    def __repr__(self) -> str:
        return f"{float(self):.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.n})"

    def record(self) -> dict[str, float]:
        """The four numbers, for a results file."""
        return {"value": float(self), "low": self.low, "high": self.high, "n": self.n}


def score(hits: Tensor, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Score:
    """The mean of hits [N] (booleans) and its interval over resampled trials.

    Resampling N yes/no trials with replacement is a binomial draw, so no resampled set has to be built.

    Raises:
        ValueError: there is no trial.
    """
    n = hits.numel()
    if n == 0:
        raise ValueError("no trials to score")
    mean = hits.double().mean().item()
    generator = torch.Generator().manual_seed(seed)
    counts = torch.binomial(torch.full((draws,), float(n)), torch.full((draws,), mean), generator=generator)
    ends = torch.quantile(counts.double() / n, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return Score(mean, ends[0].item(), ends[1].item(), n)


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
    right = torch.nn.functional.one_hot(labels, len(class_features)).bool()
    ranks = first_right_rank(image_features @ class_features.T, right)
    return ZeroShot(score(ranks < 1), score(ranks < 5), len(class_features))


def class_features(
    model: MobileCLIP | Encoder, classes: Sequence[str], templates: Sequence[str] = PHOTO_TEMPLATES
) -> Tensor:
    """The classifier that the text tower makes: a class is the mean of its prompts' features, normalised again.

    Args:
        model: a model in eval mode, or another encoder.
        classes: names, put into each template's braces.
        templates: prompts.

    Returns:
        [C, D].
    """
    encoder = ModelEncoder(model) if isinstance(model, MobileCLIP) else model
    features = encoder.encode_texts([template.format(name) for name in classes for template in templates])
    mean = features.reshape(len(classes), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


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
    similarity = image_features @ text_features.T
    return Retrieval(_recalls(similarity, right), _recalls(similarity.T, right.T))


def _recalls(similarity: Tensor, right: Tensor) -> dict[int, Score]:
    ranks = first_right_rank(similarity, right)
    return {depth: score(ranks < depth) for depth in DEPTHS}
