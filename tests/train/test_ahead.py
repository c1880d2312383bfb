"""Batches made by threads are the batches, in order."""

import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcliplib import UserError
from mcliplib.data import shard_paths
from mcliplib.train import TrainSettings, train, trainer
from mcliplib.train.data import PairData, load_reinforced
from mcliplib.train.trainer import made_ahead, threads_for


def makers():
    """How many threads make batches."""
    return sum(one.name.startswith("batches") for one in threading.enumerate())


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


@pytest.mark.parametrize("threads", [1, 3])
def test_no_thread_is_left_where_the_caller_stops_early(threads):
    batches = made_ahead(lambda step: step, range(100), threads)
    assert next(batches) == (0, 0)
    assert 0 < makers() <= threads
    batches.close()
    assert makers() == 0


def test_they_are_made_at_the_same_time_and_beside_the_caller():
    together = threading.Barrier(3)  # two threads and this one: nobody passes alone
    batches = made_ahead(lambda step: together.wait(600) if step in (1, 2) else 0, range(3), 2)
    assert next(batches) == (0, 0)
    together.wait(600)
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


@pytest.mark.parametrize(
    ("device", "cores", "processes", "threads"),
    [("cpu", 16, 1, 0), ("cuda", 16, 1, 6), ("cuda", 16, 4, 4), ("cuda", 2, 8, 1), ("cuda:1", None, 1, 1)],
)
def test_a_gpu_gets_threads_from_its_processs_share_of_the_cores(monkeypatch, device, cores, processes, threads):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert threads_for(torch.device(device)) == threads


@pytest.mark.parametrize("reinforced", [False, True])
def test_a_run_whose_batches_are_made_ahead_ends_the_same(samples, tmp_path, monkeypatch, reinforced):
    settings = TrainSettings(
        preset="mobileclip_pico", samples=64, batch_size=8, image_size=32, context_length=8, warmup_steps=2
    )
    monkeypatch.setattr(trainer, "device", lambda: torch.device("cpu"))

    def weights(threads):
        monkeypatch.setattr(trainer, "threads_for", lambda device: threads)
        data = _reinforced() if reinforced else PairData(samples)
        return train(settings, tmp_path / f"{threads}", data=data).model.state_dict().values()

    assert all(torch.equal(one, other) for one, other in zip(weights(0), weights(3), strict=True))


def _reinforced():
    whole = load_reinforced([str(shard_paths("train-reinforced")[-1])])
    return replace(whole, samples=whole.samples[:16])  # its views are made anew


def test_a_run_that_fails_leaves_no_thread(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "threads_for", lambda device: 3)
    settings = TrainSettings(
        preset="mobileclip_pico", samples=80, batch_size=8, image_size=32, context_length=8, learning_rate=1e38
    )
    with pytest.raises(UserError, match="diverged") as failed:
        train(settings, tmp_path, samples=samples)
    assert failed.tb is not None, "the traceback keeps the frames alive, and with them what is not closed"
    assert makers() == 0
