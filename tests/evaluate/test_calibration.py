"""Confidence that is right has no error; a temperature cures what is too sure; mistakes are counted where they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import confusion_matrix, f1_score

from mcliplib.evaluate import confusion, constant_answer, fit_temperature, macro_f1, most_confused, reliability


def answers(n: int, scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose softmax is right about their labels, then multiplied: above 1 they are too sure."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 5, generator=generator)
    return scale * logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_right_confidence_has_hardly_any_error():
    right, sure = reliability(*answers(20_000, 1.0)), reliability(*answers(20_000, 3.0))
    assert right.error < 0.02 < 0.15 < sure.low < sure.error < sure.high
    assert right.counts.sum() == 20_000
    full = right.counts > 500
    assert right.accuracy[full] == pytest.approx(right.confidence[full], abs=0.06)


def test_the_error_by_hand():
    """Two queries at confidence 0.75, one right; two at 0.9, both right: (|0.5 - 0.75| + |1 - 0.9|) / 2."""
    logits = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.9, 0.1], [0.9, 0.1]]).double().log()
    found = reliability(logits, torch.tensor([0, 1, 0, 0]), bins=4)
    assert found.error == pytest.approx(0.175)
    assert found.counts.tolist() == [0, 0, 2, 2]
    assert found.accuracy[2:].tolist() == [0.5, 1.0]
    assert found.accuracy[:2].isnan().all()


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_the_temperature_is_the_likeliest(scale):
    logits, labels = answers(5000, scale)
    found = fit_temperature(logits, labels)
    oracle = minimize_scalar(lambda log: torch.nn.functional.cross_entropy(logits / 2.0**log, labels).item(), (-4, 6))
    assert found == pytest.approx(2.0**oracle.x, rel=1e-2)
    assert found == pytest.approx(scale, rel=0.1)
    if scale > 1:
        assert reliability(logits / found, labels).error < 0.3 * reliability(logits, labels).error


def test_a_perfect_classifier_may_be_as_sure_as_it_likes():
    assert fit_temperature(torch.eye(3), torch.arange(3)) == pytest.approx(1e-4)
    assert fit_temperature(-torch.eye(3), torch.arange(3)) == pytest.approx(1e4)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=60))
def test_confusion_and_f1_are_scikit_learns(pairs):
    labels, predicted = torch.tensor(pairs).T
    kept = predicted >= 0
    wanted = confusion_matrix(labels[kept], predicted[kept], labels=range(5)) if kept.any() else torch.zeros(5, 5)
    assert confusion(predicted, labels, 5).tolist() == wanted.tolist()
    f1 = f1_score(labels, predicted, labels=labels.unique(), average="macro", zero_division=0)
    assert macro_f1(predicted, labels) == pytest.approx(f1)


def test_the_most_confused_pairs_come_first():
    matrix = torch.tensor([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
    assert most_confused(matrix, 2) == [(1, 0, 5), (0, 1, 2)]
    assert most_confused(matrix) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert matrix[0, 0] == 9


def test_always_the_most_frequent_class():
    labels = torch.tensor([3, 3, 3, 0, 1])
    assert constant_answer(labels) == 0.6
    assert macro_f1(torch.full((5,), 3), labels) == pytest.approx(0.25)


def test_what_is_no_class_is_refused():
    for call in (reliability, fit_temperature):
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.2"):
            call(torch.eye(3), torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match="labels and answers"):
        confusion(torch.tensor([3]), torch.tensor([0]), 3)
