"""Learning efficiency: how many times more samples one way of training needs for the accuracy of another."""

import itertools
import statistics
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

MEAN = "mean"
Curve = dict[int, list[float]]  # samples seen -> score with each seed


def main_scores(scores: Mapping[str, Mapping[str, Mapping[str, float]]], depth: int = 1) -> dict[str, float]:
    """One number a task: top-k, or the mean of recall at k both ways; and the mean over the tasks.

    Args:
        scores: by task and metric, as a record holds them.
        depth: k, 1 or 5; a task of few classes has no top-5, and is left out there.
    """
    main = {}
    for task, row in scores.items():
        kinds = [f"top{depth}"] if "top1" in row else [f"image_to_text_r{depth}", f"text_to_image_r{depth}"]
        if kinds[0] in row:
            main[task] = statistics.fmean(row[kind]["value"] for kind in kinds)
    return main | {MEAN: statistics.fmean(main.values())} if main else {}


def curves(runs: Mapping[str, Mapping[str, Any]], variant: str, depth: int = 1) -> dict[str, Curve]:
    """For each task, the variant's scores over samples seen.

    Args:
        runs: the results of an experiment, by run name (`VARIANT-SAMPLES-SEED`).
        variant: one of its variants.
        depth: see `main_scores`.
    """
    found: dict[str, Curve] = {}
    for name, result in sorted(runs.items()):
        of, samples, _ = name.rsplit("-", 2)
        if of == variant:
            for task, value in main_scores(result["scores"], depth).items():
                found.setdefault(task, {}).setdefault(int(samples), []).append(value)
    return {task: dict(sorted(curve.items())) for task, curve in found.items()}


@dataclass(frozen=True)
class Times:
    """How many times more samples the baseline needs.

    Attributes:
        value: the ratio.
        sign: "" where the ratio was measured; "at least" where the baseline never got as far: it is that of its largest
            budget; "at most" where its smallest budget was more than enough.
    """

    value: float
    sign: Literal["", "at least", "at most"] = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.value:.1f}".strip()


@dataclass(frozen=True)
class Efficiency:
    """The worth of one budget of the better way.

    Attributes:
        samples: that the better way saw.
        score: that it reached, the mean over seeds.
        times: how many times more samples the baseline needs for it, as a mean over its seeds.
        lowest: the same for the better way's worst seed against the baseline's best ones.
        highest: for the better way's best seed against the baseline's worst ones.
    """

    samples: int
    score: float
    times: Times
    lowest: Times
    highest: Times

    def interval(self) -> str:
        """Both ends in words; one where they are the same."""
        return " to ".join(dict.fromkeys(map(str, (self.lowest, self.highest))))


def efficiency(better: Curve, baseline: Curve) -> list[Efficiency]:
    """For each budget of the better way, the baseline's budget for the same score, as a ratio.

    Between measured budgets, the baseline's score is taken to be linear in the logarithm of the samples; a budget
    where it is lower than at a smaller one counts as what the smaller one reached (whoever trains would stop there).

    Args:
        better: a curve.
        baseline: the curve to compare with.
    """
    mean, best, worst = (_rising(baseline, of) for of in (statistics.fmean, max, min))
    return [
        Efficiency(
            samples,
            statistics.fmean(scores),
            times=_times(statistics.fmean(scores), samples, mean),
            lowest=_times(min(scores), samples, best),
            highest=_times(max(scores), samples, worst),
        )
        for samples, scores in sorted(better.items())
    ]


def _rising(curve: Curve, of: Callable[[Sequence[float]], float]) -> list[tuple[int, float]]:
    points = sorted(curve.items())
    best = itertools.accumulate((of(scores) for _, scores in points), max)
    return [(samples, score) for (samples, _), score in zip(points, best, strict=True)]


def _times(score: float, samples: int, points: Sequence[tuple[int, float]]) -> Times:
    """The samples at which the line through the points reaches the score, over the samples given."""
    (first, lowest), (last, highest) = points[0], points[-1]
    if score < lowest:
        return Times(first / samples, "at most")
    if score > highest:
        return Times(last / samples, "at least")
    index = bisect_left([reached for _, reached in points], score)
    if index == 0:
        return Times(first / samples)
    (before, low), (after, high) = points[index - 1], points[index]
    share = (score - low) / (high - low)
    return Times(before * (after / before) ** share / samples)
