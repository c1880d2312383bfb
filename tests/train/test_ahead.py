"""Batches made by threads are the batches, in order."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcliplib.train import TrainSettings, train, trainer
from mcliplib.train.ahead import made_ahead


@given(first=st.integers(0, 5), count=st.integers(0, 20), threads=st.integers(0, 4))
def test_every_step_once_and_in_order(first, count, threads):
    steps = range(first, first + count)
    assert list(made_ahead(lambda step: -step, steps, threads)) == [(step, -step) for step in steps]


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_are_made_than_there_are_threads_and_the_one_in_hand(threads):
    begun = []
    batches = made_ahead(begun.append, range(100), threads)
    for step in range(10):
        next(batches)
        assert len(begun) <= step + 1 + threads
    batches.close()
    assert len(begun) <= 10 + threads


@pytest.mark.timeout(60)
def test_they_are_made_at_the_same_time_and_beside_the_caller():
    together = threading.Barrier(3)  # two threads and this one: nobody passes alone
    batches = made_ahead(lambda step: together.wait(20) if step in (1, 2) else 0, range(3), 2)
    assert next(batches) == (0, 0)
    together.wait(20)
    assert [step for step, _ in batches] == [1, 2]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_comes_when_it_is_its_steps_turn(threads):
    def make(step):
        if step == 2:
            raise ValueError("damaged")
        return step

    batches = made_ahead(make, range(9), threads)
    assert [next(batches), next(batches)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="damaged"):
        next(batches)


def test_a_run_whose_batches_are_made_ahead_ends_the_same(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "device", lambda: torch.device("cpu"))
    settings = TrainSettings(
        preset="mobileclip_pico", samples=64, batch_size=8, image_size=32, context_length=8, warmup_steps=2
    )
    asked = []

    def with_threads(make, steps, threads):
        asked.append(threads)
        return made_ahead(make, steps, 3)

    waiting = train(settings, tmp_path / "waiting", samples=samples)
    monkeypatch.setattr(trainer, "made_ahead", with_threads)
    ahead = train(settings, tmp_path / "ahead", samples=samples)
    assert asked == [0], "on a CPU, threads would take the towers' cores"
    pairs = zip(waiting.model.state_dict().values(), ahead.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
