"""How far to trust a score: bootstrap intervals over queries, and a paired test between two models.

A query is a picture to classify, or a picture or text whose partner is to be found. Resampling N queries with
replacement is one multinomial draw of how often each kind of query occurs, so no resampled set is ever built. A query's
kind is all that the score depends on: hit or miss, and its group where there are groups.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

DRAWS = 1000
LEVEL = 0.95  # of every interval
_AT_A_TIME = 50  # draws in memory, where each query is a kind of its own
Statistic = Literal["mean", "mean_per_group", "worst_group"]


class Score(float):
    """A share of hits in [0, 1], with the ends of its 95% bootstrap interval and the number of trials.

    Behaves as its value: `score > 0.1`, `f"{score:.1%}"`.

    Attributes:
        low: lower end of the interval.
        high: upper end.
        n: trials.
        hits: [n], of each trial, for `compare`; None where the score is no average over trials.
        groups: [n], each trial's class or group, where there are such.
        statistic: what the value is of the hits.
    """

    low: float
    high: float
    n: int
    hits: Tensor | None
    groups: Tensor | None
    statistic: Statistic

    def __new__(
        cls,
        value: float,
        low: float,
        high: float,
        n: int,
        hits: Tensor | None = None,
        groups: Tensor | None = None,
        statistic: Statistic = "mean",
    ) -> "Score":
        score = super().__new__(cls, value)
        score.low, score.high, score.n = low, high, n
        score.hits, score.groups, score.statistic = hits, groups, statistic
        return score

    def __getnewargs__(self) -> tuple[float, float, float, int, Tensor | None, Tensor | None, str]:  # type: ignore[override]
        return float(self), self.low, self.high, self.n, self.hits, self.groups, self.statistic

    def __repr__(self) -> str:
        return f"{float(self):.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.n})"

    def record(self) -> dict[str, float]:
        """The four numbers, for a results file."""
        return {"value": float(self), "low": self.low, "high": self.high, "n": self.n}


def score(
    hits: Shaped[Tensor, " n"],
    groups: Int[Tensor, " n"] | None = None,
    statistic: Statistic = "mean",
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Score:
    """A statistic of hits and its interval over resampled trials.

    Args:
        hits: of each trial: a boolean, or a number in [0, 1].
        groups: each trial's class or group.
        statistic: "mean"; "mean_per_group", the mean of the groups' means (with classes as groups: mean per class
            recall, or balanced accuracy); or "worst_group", the lowest of the groups' means.
        draws: resampled sets.
        seed: of the draws.

    Raises:
        ValueError: there is no trial.
    """
    n = hits.numel()
    if n == 0:
        raise ValueError("no trials to score")
    if statistic == "mean" and hits.dtype == torch.bool:  # two kinds of trials: the multinomial is a binomial
        mean = hits.double().mean().item()
        generator = torch.Generator().manual_seed(seed)
        counts = torch.binomial(torch.full((draws,), float(n)), torch.full((draws,), mean), generator=generator)
        return Score(mean, *interval(counts.double() / n), n, hits, groups, statistic)
    kinds, counts = torch.unique(_columns(hits, groups), dim=0, return_counts=True)
    value, drawn = (
        _statistic(some, kinds[:, 1], kinds[:, 0], statistic)
        for some in (counts[None].double(), resampled(counts, draws, seed))
    )
    return Score(value.item(), *interval(drawn), n, hits, groups, statistic)


def mean_per_class(hits: Shaped[Tensor, " n"], labels: Int[Tensor, " n"]) -> Score:
    """The mean of the classes' shares of hits, each class with equal weight, over the classes that occur in `labels`.

    scikit-learn's `balanced_accuracy_score`; DataComp's metric where classes differ much in size.
    """
    return score(hits, labels, "mean_per_group")


def worst_group(hits: Shaped[Tensor, " n"], groups: Int[Tensor, " n"]) -> Score:
    """The lowest share of hits that any group has (WILDS, 2012.07421)."""
    return score(hits, groups, "worst_group")


class Comparison(NamedTuple):
    """Model a against model b on the same queries.

    Attributes:
        difference: a's score minus b's.
        low: lower end of its 95% interval, by resampling queries; both models answer the same resampled ones.
        high: upper end.
        only_a: queries that a alone hits.
        only_b: queries that b alone hits.
        p_value: of McNemar's exact test: how likely so uneven a split of the queries that only one model hits is, if
            either model is as likely to be the one. None where hits are not yes or no.
        n: queries.
    """

    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float | None
    n: int


def compare(a: Score, b: Score, *, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Whether two models' scores on the same queries differ by more than chance.

    Paired, because models mostly fail on the same queries: the interval of the difference is far narrower than those of
    the two scores suggest.

    Raises:
        ValueError: the scores do not belong to the same queries, or keep no hits.
    """
    if a.hits is None or b.hits is None:
        raise ValueError("a score without hits per query cannot be compared")
    alike = (a.groups is b.groups is None) or (
        a.groups is not None and b.groups is not None and torch.equal(a.groups, b.groups)
    )
    if a.n != b.n or a.statistic != b.statistic or not alike:
        raise ValueError(
            f"scores of other queries cannot be paired: {a.statistic} of {a.n} and {b.statistic} of {b.n} queries"
            + ("" if alike else ", in other classes or groups")
        )
    kinds, counts = torch.unique(_columns(a.hits, a.groups, b.hits), dim=0, return_counts=True)
    drawn = resampled(counts, draws, seed)
    of_a, of_b = (_statistic(drawn, kinds[:, at], kinds[:, 0], a.statistic) for at in (1, 2))
    only_a, only_b = (int((one > other).sum()) for one, other in ((a.hits, b.hits), (b.hits, a.hits)))
    yes_or_no = a.hits.dtype == b.hits.dtype == torch.bool
    p_value = _mcnemar(only_a, only_b) if yes_or_no else None
    return Comparison(float(a) - float(b), *interval(of_a - of_b), only_a, only_b, p_value, a.n)


def resampled(counts: Int[Tensor, " kinds"], draws: int, seed: int) -> Float[Tensor, "draws kinds"]:
    """How often each kind of query occurs in as many queries drawn with replacement."""
    n = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(n, counts.double().numpy() / n, size=draws)
    return torch.from_numpy(drawn).double()


def resampled_sums(values: Float[Tensor, "n k"], seed: int) -> Float[Tensor, "draws k"]:
    """Sums of queries' values over queries drawn with replacement, some draws at a time: each weighs all n queries."""
    each = torch.ones(len(values), dtype=torch.long)
    return torch.cat([resampled(each, _AT_A_TIME, seed + at) @ values for at in range(DRAWS // _AT_A_TIME)])


def interval(drawn: Float[Tensor, " draws"]) -> tuple[float, float]:
    """The middle 95% of a resampled statistic."""
    ends = torch.quantile(drawn, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64))
    return ends[0].item(), ends[1].item()


def sums_per_group(
    counts: Float[Tensor, "draws kinds"], groups: Int[Tensor, " kinds"], size: int
) -> Float[Tensor, "draws {size}"]:
    """Counts added up by the kinds' groups, which are 0 to `size` - 1."""
    return torch.zeros(len(counts), size, dtype=torch.float64).index_add_(1, groups, counts)


def _columns(hits: Tensor, groups: Tensor | None, *more: Tensor) -> Tensor:
    """[n, 2 or 3]: group, hit, and the other model's hit."""
    first = torch.zeros(len(hits)) if groups is None else groups
    return torch.stack([column.cpu().double() for column in (first, hits, *more)], dim=1)


def _statistic(counts: Tensor, hits: Tensor, groups: Tensor, statistic: Statistic) -> Tensor:
    if statistic == "mean":
        return counts @ hits / counts.sum(1)
    names, index = torch.unique(groups, return_inverse=True)
    shares = sums_per_group(counts * hits, index, len(names)) / sums_per_group(counts, index, len(names))
    reduce: dict[str, Callable[[Tensor], Tensor]] = {
        "mean_per_group": lambda shares: shares.nanmean(1),  # a group that was not drawn has no share
        "worst_group": lambda shares: shares.nan_to_num(torch.inf).amin(1),
    }
    return reduce[statistic](shares)


def _mcnemar(one: int, other: int) -> float:
    """Twice the lower tail of a binomial of one half (McNemar, 1947), with logarithms against overflow."""
    n, k = one + other, torch.arange(min(one, other) + 1, dtype=torch.float64)
    logs = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1) - n * math.log(2)
    return min(1.0, 2 * torch.logsumexp(logs, 0).exp().item())
