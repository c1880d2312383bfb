"""Zero-shot and retrieval on features whose scores can be told by hand."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcliplib.evaluate import retrieval, zero_shot
from mcliplib.evaluate.scores import score


def test_perfect_and_wrong_classification():
    eye = torch.eye(6)
    assert zero_shot(eye, eye, torch.arange(6)) == (1.0, 1.0, 6)
    shifted = zero_shot(eye, eye, (torch.arange(6) + 1) % 6)
    assert shifted.top1 == 0.0


def test_top5_by_hand():
    classes = torch.tensor([[1.0 - 0.1 * i] for i in range(7)])  # class i has similarity 1 - i/10 to the one image
    image = torch.ones(1, 1)
    assert [zero_shot(image, classes, torch.tensor([c])).top5 for c in range(7)] == [1, 1, 1, 1, 1, 0, 0]


def test_a_constant_model_scores_nothing():
    """Ties count against the model, so a collapsed one is not taken for a perfect one."""
    assert zero_shot(torch.ones(8, 4), torch.ones(8, 4), torch.arange(8)).top1 == 0
    assert retrieval(torch.ones(8, 4), torch.ones(8, 4)).image_to_text[1] == 0


def test_features_that_are_no_numbers_score_nothing():
    broken = torch.full((8, 4), torch.nan)
    assert zero_shot(broken, broken, torch.arange(8)).top1 == 0
    assert retrieval(broken, broken).text_to_image[1] == 0


def test_a_score_can_be_copied_and_sent():
    before = score(torch.arange(50) < 10)
    for after in (copy.deepcopy(before), pickle.loads(pickle.dumps(before))):
        assert (float(after), after.low, after.high, after.n) == (float(before), before.low, before.high, before.n)


def test_retrieval_by_hand():
    images = torch.eye(3)
    texts = torch.tensor([[0.9, 0.8, 0.0], [1.0, 0.1, 0.0], [0.0, 0.0, 1.0]])
    found = retrieval(images, texts)  # image 0 prefers text 1, image 1 prefers text 0; all within the first 5
    assert found.image_to_text[1] == pytest.approx(1 / 3)
    assert found.image_to_text[5] == 1.0
    assert found.text_to_image[1] == pytest.approx(2 / 3)  # text 0 -> image 0, text 1 -> image 0 (wrong), text 2


def test_several_right_answers():
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.0, 1.0]])
    found = retrieval(images, texts, torch.tensor([[0, 0], [0, 1], [1, 2]]))
    assert found.image_to_text[1] == 1.0
    assert found.text_to_image[1] == 1.0
    assert found.text_to_image[1].n == 3


@given(st.integers(2, 30), st.integers(0, 1000))
def test_recall_grows_with_depth_and_ignores_order(n, seed):
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator)) for _ in range(2))
    found = retrieval(images, texts).image_to_text
    assert 0 <= found[1] <= found[5] <= found[10] <= 1
    order = torch.randperm(n, generator=generator)
    assert retrieval(images[order], texts[order]).image_to_text[1] == pytest.approx(float(found[1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3), torch.ones(2, 4), torch.zeros(2).long()), "features must be"),
        ((torch.ones(2, 3), torch.ones(2, 3), torch.zeros(3).long()), r"labels must be \[2\]"),
        ((torch.ones(2, 3), torch.ones(2, 3), torch.tensor([0, 2])), r"labels must be in 0\.\.1"),
    ],
)
def test_wrong_zero_shot_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        zero_shot(*arguments)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([[0, 0]], "at least one pair"), ([[0, 5]], "outside"), ([0, 1], r"pairs must be \[P, 2\]")],
)
def test_wrong_pairs(pairs, message):
    with pytest.raises(ValueError, match=message):
        retrieval(torch.eye(2), torch.eye(2), torch.tensor(pairs))


def test_interval_covers_and_narrows():
    few, many = score(torch.arange(50) < 10), score(torch.arange(5000) < 1000)
    assert few == many == pytest.approx(0.2)
    assert few.low < many.low < 0.2 < many.high < few.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * (0.2 * 0.8 / 5000) ** 0.5, rel=0.1)


def test_no_trials():
    with pytest.raises(ValueError, match="no trials"):
        score(torch.zeros(0))
