"""How much of a set's classes the image features hold, without texts: linear probe, few shots, nearest neighbours.

All three learn from labelled training features and are scored on test features. They are exact and deterministic: the
same features give the same score.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from mcliplib.evaluate.intervals import (
    DRAWS,
    Score,
    interval,
    mean_per_class,
    resampled,
    resampled_sums,
    score,
)
from mcliplib.evaluate.scores import first_right_rank

_COARSE = tuple(10.0**power for power in range(-6, 7, 2))  # of C, as in CLIP (2103.00020), appendix A.3
_FINE = tuple(10.0**power for power in (1, 0.5, 0.25, 0.125))  # steps around the best: eight a decade in the end
_VALIDATION = 0.2
_EXACT, _ROUGH = 1e-9, 1e-6  # of the gradient: for the answer, and for the search of C
_ROWS = 4096  # test features compared with all training features at a time


class LinearProbe(NamedTuple):
    """A linear classifier of features, and its scores on the test features."""

    accuracy: Score
    mean_per_class: Score
    c: float  # inverse strength of the L2 regularisation, as in scikit-learn
    weights: Float[Tensor, "classes d"]
    bias: Float[Tensor, " classes"]


def linear_probe(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test_features: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    *,
    c: float | None = None,
    seed: int = 0,
) -> LinearProbe:
    """Multinomial logistic regression, solved to convergence by L-BFGS in float64 (CLIP, appendix A.3).

    It minimises ``C * sum(cross entropies) + sum(weights ** 2) / 2``; the bias is not regularised. C is the one that is
    best on a fifth of the training features, drawn evenly from the classes; then all of them are used. C is looked for
    on a logarithmic grid from 1e-6 to 1e6, coarse first, then around the best.

    Args:
        train_features: as the model gives them; not standardised here.
        train_labels: class of each, from 0 on.
        test_features: of other pictures.
        test_labels: a class that training lacks is never hit.
        c: skips the search. Also where no class has two training features the search is skipped, and C is 1.
        seed: of the draw of the validation part.

    Raises:
        ValueError: shapes that do not fit, a negative label, or features that are NaN or infinite.
    """
    _check(train_features, train_labels, test_features, test_labels)
    classes = int(train_labels.max()) + 1
    features = train_features.double()
    if c is None:
        c = _best_c(features, train_labels, classes, seed)
    solution = _solve(features, train_labels, classes, c)
    hits = _first(test_features.double() @ solution[:-1] + solution[-1], test_labels)
    weights, bias = solution[:-1].T.contiguous(), solution[-1].clone()
    return LinearProbe(score(hits, test_labels), mean_per_class(hits, test_labels), c, weights, bias)


class FewShot(NamedTuple):
    """Linear probes of k training features a class.

    Attributes:
        accuracy: mean over the repeats; its interval is over queries and over draws of the shots.
        repeats: accuracy of each repeat.
    """

    accuracy: Score
    repeats: tuple[float, ...]


def few_shot(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test_features: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    k: int,
    *,
    repeats: int = 5,
    seed: int = 0,
) -> FewShot:
    """Linear probes that see k features of each class, drawn anew in each repeat.

    Args:
        k: shots a class; a class that has fewer gives all it has.
        repeats: draws of the shots, with seeds `seed`, `seed` + 1, ...

    Raises:
        ValueError: as `linear_probe`, or k or `repeats` below 1.
    """
    if k < 1 or repeats < 1:
        raise ValueError(f"k and repeats must be at least 1, got {k} and {repeats}")
    _check(train_features, train_labels, test_features, test_labels)
    hits = []
    for at in range(seed, seed + repeats):
        shots = torch.cat([members[:k] for members in _shuffled_classes(train_labels, at)])
        probe = linear_probe(train_features[shots], train_labels[shots], test_features, test_labels, seed=at)
        assert probe.accuracy.hits is not None
        hits.append(probe.accuracy.hits.double())
    by_query = torch.stack(hits, dim=1)  # [m, repeats]
    means = by_query.mean(dim=1)
    weights = resampled(torch.ones(repeats, dtype=torch.long), DRAWS, seed) / repeats
    drawn = (resampled_sums(by_query, seed + 1) * weights).sum(dim=1) / len(means)
    accuracy = Score(means.mean().item(), *interval(drawn), len(means), means, test_labels)
    return FewShot(accuracy, tuple(by_query.mean(dim=0).tolist()))


def nearest_neighbours(
    train_features: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test_features: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Score:
    """Accuracy of the k nearest training features' vote, each weighted by exp(similarity / temperature).

    As in instance discrimination (1805.01978) and DINO (2104.14294). Of two classes with as many votes, the wrong one
    counts as chosen.

    Args:
        train_features: normalised.
        test_features: normalised.
        k: at most all training features.

    Raises:
        ValueError: shapes that do not fit, k below 1, or a temperature that is not positive.
    """
    _check(train_features, train_labels, test_features, test_labels)
    if k < 1 or not temperature > 0:
        raise ValueError(f"k must be at least 1 and the temperature positive, got {k} and {temperature}")
    votes_of = one_hot(train_labels, int(train_labels.max()) + 1).double()
    hits = []
    for rows in torch.arange(len(test_features)).split(_ROWS):
        near = (test_features[rows] @ train_features.T).topk(min(k, len(train_features)), dim=1)
        weights = (near.values.double() / temperature).softmax(dim=1)  # exp over its sum: the same vote
        votes = torch.zeros(len(rows), votes_of.shape[1], dtype=torch.float64)
        hits.append(_first(votes.scatter_add_(1, train_labels[near.indices], weights), test_labels[rows]))
    return score(torch.cat(hits), test_labels)


def _best_c(features: Tensor, labels: Tensor, classes: int, seed: int) -> float:
    """The C with the best validation accuracy; the strongest regularisation of several that are as good."""
    groups = _shuffled_classes(labels, seed)
    counts = [max(1, round(_VALIDATION * len(members))) if len(members) > 1 else 0 for members in groups]
    held = torch.cat([members[:count] for members, count in zip(groups, counts, strict=True)])
    if not len(held):
        return 1.0
    kept = torch.cat([members[count:] for members, count in zip(groups, counts, strict=True)])
    found: dict[float, float] = {}

    def best_of(candidates: tuple[float, ...]) -> float:
        for c in sorted(set(candidates) - set(found)):
            solution = _solve(features[kept], labels[kept], classes, c, tolerance=_ROUGH)
            hits = _first(features[held] @ solution[:-1] + solution[-1], labels[held])
            found[c] = hits.double().mean().item()
        return min(found, key=lambda c: (-found[c], c))

    best = best_of(_COARSE)
    for step in _FINE:
        best = best_of((best / step, best * step))
    return best


def _solve(features: Tensor, labels: Tensor, classes: int, c: float, tolerance: float = _EXACT) -> Tensor:
    """[d + 1, classes]: the weights, then the bias, where no component of the mean loss's gradient is larger."""
    n, d = features.shape
    scale = min(1.0, (c * n) ** 0.5)  # of the weights that are solved for: a strong penalty is no steeper than the loss
    features = features * scale
    solution = torch.zeros(d + 1, classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [solution], max_iter=2000, max_eval=4000, history_size=20, tolerance_grad=tolerance, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        solver.zero_grad()
        loss = cross_entropy(features @ solution[:-1] + solution[-1], labels)
        loss = loss + solution[:-1].square().sum() * scale**2 / (2 * c * n)
        loss.backward()
        return loss

    solver.step(closure)
    return solution.detach() * torch.tensor([scale] * d + [1.0], dtype=torch.float64)[:, None]


def _first(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each row's class has the highest logit, and alone; never where there is no such class."""
    known = labels < logits.shape[1]
    right = torch.arange(logits.shape[1]) == labels[:, None]
    return (first_right_rank(logits, right) < 1) & known


def _shuffled_classes(labels: Tensor, seed: int) -> list[Tensor]:
    """The positions of each class's members, in random order."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return [order[labels[order] == label] for label in labels.unique()]


def _check(train_features: Tensor, train_labels: Tensor, test_features: Tensor, test_labels: Tensor) -> None:
    for what, features, labels in (("train", train_features, train_labels), ("test", test_features, test_labels)):
        if features.dim() != 2 or not len(features) or labels.shape != features.shape[:1]:
            raise ValueError(f"{what} features must be [N, D] with N labels, "
                             f"got {list(features.shape)} and {list(labels.shape)}")  # fmt: skip
        if int(labels.min()) < 0 or not features.isfinite().all():
            raise ValueError(f"{what} labels must be 0 or more, and the features finite")
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"features of {train_features.shape[1]} and {test_features.shape[1]} numbers cannot be compared"
        )
