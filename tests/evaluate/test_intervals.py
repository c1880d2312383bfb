"""Intervals cover what they should, and two models are compared on the same queries or not at all."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from mcliplib.evaluate import Score, compare, mean_per_class, score, worst_group


def drawn(seed: int, n: int, share: float) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed)) < share


def resampled(statistic, n, draws=2000):
    """The plain bootstrap: queries drawn with replacement, the statistic computed anew."""
    numbers = np.random.default_rng(1)
    values = [statistic(torch.from_numpy(numbers.integers(0, n, n))) for _ in range(draws)]
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.parametrize("statistic", [mean_per_class, worst_group])
def test_the_interval_is_the_plain_bootstraps(statistic):
    hits, groups = drawn(0, 300, 0.6), torch.tensor([0] * 200 + [3] * 80 + [7] * 20)
    hits[groups == 7] = drawn(1, 20, 0.3)
    found = statistic(hits, groups)
    low, high = resampled(lambda rows: float(statistic(hits[rows], groups[rows])), 300, draws=400)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert found.low < found < found.high or statistic is worst_group


def test_numbers_between_miss_and_hit_have_an_interval_too():
    values = torch.linspace(0, 1, 200).double()
    found = score(values)
    low, high = resampled(lambda rows: values[rows].mean().item(), 200)
    assert found == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_the_mean_per_class_is_scikit_learns(n, classes, seed):
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    hits = drawn(seed, n, 0.5)
    predicted = torch.where(hits, labels, labels + 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)  # of answers that are no class
        wanted = balanced_accuracy_score(labels.numpy(), predicted.numpy())
    assert mean_per_class(hits, labels) == pytest.approx(wanted, abs=1e-12)


def test_the_worst_group_by_hand():
    hits, groups = torch.tensor([1, 1, 0, 1, 0, 0]).bool(), torch.tensor([0, 0, 0, 2, 2, 2])
    assert worst_group(hits, groups) == pytest.approx(1 / 3)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10_000))
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b, same):
    """Also of many queries, where a product of factorials overflows."""
    a = score(torch.tensor([1] * only_a + [0] * only_b + [1] * (same + 1)).bool())
    b = score(torch.tensor([0] * only_a + [1] * only_b + [1] * (same + 1)).bool())
    found = compare(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    wanted = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found.p_value == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_of_many_queries():
    a, b = torch.zeros(30_000).bool(), torch.zeros(30_000).bool()
    a[:10_200], b[10_200:20_200] = True, True
    assert compare(score(a), score(b)).p_value == pytest.approx(binomtest(10_200, 20_200).pvalue, rel=1e-6)


def test_a_paired_difference_is_surer_than_two_intervals():
    """b is a with one query in fifty got wrong: each score is uncertain by 9 points, their difference by 2."""
    a = drawn(2, 500, 0.5)
    b = a & ~drawn(3, 500, 0.04)
    found = compare(score(a), score(b))
    assert 0 < found.low < found.difference < found.high
    assert found.high - found.low < 0.5 * (score(a).high - score(a).low)
    assert found.p_value < 0.01
    back = compare(score(b), score(a))
    assert back.difference == -found.difference
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.004)


def test_a_model_against_itself_is_no_difference():
    hits = drawn(4, 100, 0.7)
    found = compare(score(hits), score(hits))
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_mean_per_class_is_compared_by_class():
    """Small classes weigh as much as large ones: b is better in all, a in queries."""
    labels = torch.tensor([0] * 900 + [1] * 50 + [2] * 50)
    a, b = labels == 0, labels > 0
    assert compare(score(a, labels), score(b, labels)).difference > 0.7
    balanced = compare(mean_per_class(a, labels), mean_per_class(b, labels))
    assert balanced.difference == pytest.approx(-1 / 3)
    assert balanced.high < 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (score(drawn(0, 9, 0.5)), score(drawn(0, 8, 0.5)), "cannot be paired: mean of 9 and mean of 8"),
        (Score(0.5, 0.4, 0.6, 9), score(drawn(0, 9, 0.5)), "without hits"),
        (
            score(drawn(0, 4, 0.5), torch.arange(4)),
            score(drawn(0, 4, 0.5), torch.tensor([0, 1, 2, 2])),
            "other classes",
        ),
        (score(drawn(0, 4, 0.5), torch.arange(4)), score(drawn(0, 4, 0.5)), "other classes"),
        (score(drawn(0, 4, 0.5), torch.arange(4)), mean_per_class(drawn(0, 4, 0.5), torch.arange(4)), "mean_per_group"),
    ],
)
def test_what_is_not_paired_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        compare(a, b)


def test_a_copied_score_can_still_be_compared():
    a = mean_per_class(drawn(0, 20, 0.5), torch.arange(20) % 3)
    assert compare(copy.deepcopy(a), a).difference == 0
