"""Probes against scikit-learn's solvers, and against what can be told by hand."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import mcliplib
from mcliplib.data import get_card, load_samples
from mcliplib.evaluate import constant_answer, few_shot, image_features, linear_probe, nearest_neighbours
from tests.conftest import refused


@pytest.fixture(scope="module")
def blobs():
    """Three overlapping clouds of unequal size: train features and labels, then test's."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 15).repeat(2)
    centres = torch.randn(3, 8, generator=generator)
    points = centres[labels] + 1.2 * torch.randn(210, 8, generator=generator)
    return points[:105], labels[:105], points[105:], labels[105:]


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_the_solution_is_scikit_learns(blobs, c):
    found = linear_probe(*blobs, c=c)
    oracle = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(blobs[0].double().numpy(), blobs[1].numpy())
    bias = found.bias - found.bias.mean()  # the softmax does not see what is common to all
    assert found.weights.numpy() == pytest.approx(oracle.coef_, abs=2e-5, rel=1e-4)
    assert bias.numpy() == pytest.approx(oracle.intercept_ - oracle.intercept_.mean(), abs=2e-5, rel=1e-4)
    assert found.accuracy == pytest.approx(oracle.score(blobs[2].double().numpy(), blobs[3].numpy()))


def test_regularisation_is_chosen_on_training_features_alone(blobs):
    """Labels of the test features change nothing but the score; noise wants stronger regularisation than signal."""
    train, labels, test, wanted = blobs
    first, other = linear_probe(*blobs), linear_probe(train, labels, test, wanted.flip(0))
    assert first.c == other.c
    assert torch.equal(first.weights, other.weights)
    noise = linear_probe(torch.randn(100, 40, generator=torch.Generator().manual_seed(1)),
                         (torch.arange(100) % 10 == 0).long(), test.repeat(1, 5), wanted.clamp(max=1))  # fmt: skip
    assert noise.c < first.c


def test_the_same_call_gives_the_same_bits(blobs):
    one, two = linear_probe(*blobs, seed=3), linear_probe(*blobs, seed=3)
    assert torch.equal(one.weights, two.weights)
    assert (one.c, float(one.accuracy), one.accuracy.low) == (two.c, float(two.accuracy), two.accuracy.low)


def test_classes_that_training_lacks_are_missed_and_still_count():
    train, labels = torch.eye(2).repeat(5, 1), torch.tensor([0, 1]).repeat(5)
    found = linear_probe(train, labels, torch.eye(2)[[0, 1, 0, 1]], torch.tensor([0, 1, 2, 7]))
    assert found.accuracy == 0.5
    assert found.mean_per_class == 0.5
    assert found.weights.shape == (2, 2)


def test_features_that_hold_nothing_are_no_hits():
    """All features alike: no class is nearer than another, however many there are of it."""
    same = torch.ones(8, 3)
    assert nearest_neighbours(same, torch.tensor([0, 1] * 4), same, torch.tensor([0, 1] * 4)) == 0


def test_shots_are_as_many_as_asked_for_and_help(blobs, monkeypatch):
    from mcliplib.evaluate import probe

    seen, solve = [], probe._solve
    monkeypatch.setattr(
        probe,
        "_solve",
        lambda x, y, *more, **others: seen.append(y.bincount().tolist()) or solve(x, y, *more, **others),
    )
    one = few_shot(*blobs, k=1, repeats=4)
    assert seen == [[1, 1, 1]] * 4
    many = few_shot(*blobs, k=20, repeats=4)
    assert seen[-1] == [20, 20, 15]
    assert many.accuracy > one.accuracy
    assert one.accuracy == pytest.approx(sum(one.repeats) / 4)
    assert len(set(one.repeats)) > 1
    assert one.accuracy.low < min(one.accuracy, max(one.repeats)) <= one.accuracy.high or one.accuracy.high < 1
    assert one.accuracy.high - one.accuracy.low > many.accuracy.high - many.accuracy.low, "few shots are a gamble"


def test_neighbours_are_scikit_learns(blobs):
    train, labels, test, wanted = blobs
    train, test = (torch.nn.functional.normalize(part).double() for part in (train, test))
    oracle = KNeighborsClassifier(7, weights=lambda far: torch.exp(torch.from_numpy(1 - far**2 / 2) / 0.1).numpy())
    oracle.fit(train.numpy(), labels.numpy())  # a cosine is 1 - distance^2 / 2
    found = nearest_neighbours(train, labels, test, wanted, k=7, temperature=0.1)
    assert found.hits.tolist() == (oracle.predict(test.numpy()) == wanted.numpy()).tolist()


def test_a_cold_vote_is_the_nearest_neighbours(blobs):
    train, labels, test, wanted = blobs
    one = nearest_neighbours(train, labels, test, wanted, k=1)
    cold = nearest_neighbours(train, labels, test, wanted, k=50, temperature=1e-5)
    assert one.hits.tolist() == cold.hits.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: torch.zeros(3).long()}, "with N labels"),
        ({3: torch.full((105,), -1)}, "0 or more"),
        ({0: torch.full((105, 8), torch.nan)}, "finite"),
        ({2: torch.ones(105, 7)}, "cannot be compared"),
    ],
)
@pytest.mark.parametrize("method", [linear_probe, nearest_neighbours])
def test_wrong_input(blobs, change, message, method):
    arguments = [change.get(at, value) for at, value in enumerate(blobs)]
    with refused(ValueError, message):
        method(*arguments)


def test_wrong_settings(blobs):
    for broken in ({"k": 0}, {"k": 1, "temperature": 0.0}):
        with pytest.raises(ValueError, match="at least 1"):
            nearest_neighbours(*blobs, **broken)
    with pytest.raises(ValueError, match="at least 1"):
        few_shot(*blobs, k=0)


def test_the_students_features_hold_what_pictures_show():
    """The twelve categories of the art4apps set, told apart without any text: better than their most frequent one."""
    samples, task = load_samples("art4apps"), get_card("art4apps")["tasks"]["categories"]
    labels = torch.tensor([task["classes"].index(one.meta[task["label_field"]]) for one in samples])
    features = image_features(mcliplib.load_model("student"), [one.image for one in samples])
    test = torch.arange(len(samples)) % 3 == 0
    found = linear_probe(features[~test], labels[~test], features[test], labels[test])
    near = nearest_neighbours(features[~test], labels[~test], features[test], labels[test])
    assert min(found.accuracy.low, near.low) > constant_answer(labels[test])
