"""Whether a classifier's confidence is right, and which classes it confuses.

The logits of a zero-shot classifier are its cosines times the model's logit scale; a linear probe's are its outputs.
"""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from mcliplib.evaluate.intervals import interval, resampled_sums

BINS = 15
_COLDEST, _HOTTEST = 1e-4, 1e4  # temperatures


class Reliability(NamedTuple):
    """Confidence against accuracy, in bins of equal width.

    Attributes:
        error: expected calibration error: mean distance of confidence and accuracy, bins weighted by their queries.
        low: lower end of its 95% interval over resampled queries. The error of few queries is biased upwards.
        high: upper end.
        confidence: [bins], mean of the highest probability; NaN in an empty bin.
        accuracy: [bins], share of hits; NaN in an empty bin.
        counts: [bins], queries.
    """

    error: float
    low: float
    high: float
    confidence: Float[Tensor, " bins"]
    accuracy: Float[Tensor, " bins"]
    counts: Int[Tensor, " bins"]


def reliability(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], *, bins: int = BINS) -> Reliability:
    """Expected calibration error and its bins (1706.04599, section 2).

    Args:
        logits: their softmax are the probabilities.
        labels: class of each row.
        bins: bin b holds the confidences in (b / bins, (b + 1) / bins].

    Raises:
        ValueError: no query, or a label outside the classes.
    """
    _check(logits, labels)
    confidence, answer = logits.double().softmax(dim=1).max(dim=1)
    hits = (answer == labels).double()
    at = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    of_bin = one_hot(at, bins).double()  # [n, bins]
    counts = of_bin.sum(dim=0)
    gaps = (hits - confidence)[:, None] * of_bin
    low, high = interval(resampled_sums(gaps, seed=0).abs().sum(dim=1) / len(labels))
    error = gaps.sum(dim=0).abs().sum().item() / len(labels)
    return Reliability(error, low, high, confidence @ of_bin / counts, hits @ of_bin / counts, counts.long())


def fit_temperature(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """The temperature T by which held-out logits must be divided to be likeliest (1706.04599, section 4.2).

    The negative log likelihood is convex in 1/T; bisection finds where its slope is zero.

    Args:
        logits: of queries that are not those the classifier is then judged on.
        labels: class of each row.

    Returns:
        T, from 1e-4 (where every query is a hit, colder is always likelier) to 1e4 (where logits tell nothing).

    Raises:
        ValueError: no query, or a label outside the classes.
    """
    _check(logits, labels)
    values = logits.double()
    of_label = values.gather(1, labels[:, None])[:, 0]

    def slope(inverse: float) -> float:
        return (((values * inverse).softmax(dim=1) * values).sum(dim=1) - of_label).mean().item()

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    while high / low > 1 + 1e-9:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / (low * high) ** 0.5


def confusion(
    predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int
) -> Int[Tensor, "{classes} {classes}"]:
    """How often each class (row) is taken for each class (column); answers of -1 (`nearest_class`) are left out.

    Raises:
        ValueError: a label or answer outside the classes.
    """
    if len(labels) and (int(labels.min()) < 0 or max(int(labels.max()), int(predicted.max())) >= classes):
        raise ValueError(f"labels and answers must be in 0..{classes - 1}")
    answered = predicted >= 0
    cells = labels[answered] * classes + predicted[answered]
    return cells.bincount(minlength=classes * classes).reshape(classes, classes)


def most_confused(matrix: Int[Tensor, "c c"], k: int = 10) -> list[tuple[int, int, int]]:
    """The k most frequent mistakes in a confusion matrix: (class, what it is taken for, how often)."""
    wrong = matrix.clone().fill_diagonal_(0)
    counts, cells = wrong.flatten().sort(descending=True, stable=True)
    pairs = zip(cells[:k].tolist(), counts[:k].tolist(), strict=True)
    return [(cell // len(matrix), cell % len(matrix), count) for cell, count in pairs if count]


def _check(logits: Tensor, labels: Tensor) -> None:
    if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise ValueError(f"labels must be in 0..{logits.shape[1] - 1}, and there must be one")
