"""Learning efficiency: how many times more samples one way of training needs for the accuracy of another."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
class Efficiency:
    """What one budget of the better way is worth.

    Attributes:
        samples: that the better way saw.
        score: that it reached, the mean over seeds.
        times: how many times more samples the baseline needs for it. Where `reached` is false, it was not reached
            within the largest budget, and this is a lower bound.
        reached: whether the baseline's mean ever got there.
    """

    samples: int
    score: float
    times: float
    reached: bool


def efficiency(better: Curve, baseline: Curve) -> list[Efficiency]:
    """For each budget of the better way, the baseline's budget for the same score, as a ratio.

    Between measured budgets, the baseline's score is taken to be linear in the logarithm of the samples; a budget
    where it is lower than at a smaller one counts as what the smaller one reached (whoever trains would stop there).

    Args:
        better: a curve.
        baseline: the curve to compare with.
    """
    means = _rising([(samples, statistics.fmean(scores)) for samples, scores in sorted(baseline.items())])
    found = []
    for samples, scores in sorted(better.items()):
        score = statistics.fmean(scores)
        needed = _samples_for(score, means)
        reached = needed is not None
        found.append(Efficiency(samples, score, (needed or means[-1][0]) / samples, reached))
    return found


def _rising(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    best, kept = -math.inf, []
    for samples, score in points:
        best = max(best, score)
        kept.append((samples, best))
    return kept


def _samples_for(score: float, points: Sequence[tuple[int, float]]) -> float | None:
    """None where no point is as good. Below the first point, the first one's samples: an upper bound."""
    if score <= points[0][1]:
        return float(points[0][0])
    for (before, low), (after, high) in itertools.pairwise(points):
        if low < score <= high:
            share = (score - low) / (high - low)
            return math.exp(math.log(before) + share * (math.log(after) - math.log(before)))
    return None
