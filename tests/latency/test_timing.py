"""Interleaved timing, on a clock of our own."""

import pytest
import torch

from mcliplib.latency import measure


def test_a_slower_callable_has_a_larger_ratio(clock):
    found = measure({"fast": clock.taking(0.010), "slow": clock.taking(0.030)}, rounds=4, clock=clock)
    assert found.spread("fast") == pytest.approx((10, 10, 10))
    assert found.ratio("slow", "fast") == pytest.approx((3, 3, 3))
    assert found.ratio("fast", "slow").median == pytest.approx(1 / 3)


def test_a_machine_that_slows_down_slows_both_sides_of_a_ratio(clock):
    drift = (1.0, 2.0, 4.0, 8.0, 16.0)
    fast, slow = clock.taking(*drift), clock.taking(*(3 * factor for factor in drift))
    found = measure({"fast": fast, "slow": slow}, rounds=5, warmup=0, clock=clock)
    assert found.spread("fast") == pytest.approx((4000, 2000, 8000))
    assert found.ratio("slow", "fast") == pytest.approx((3, 3, 3))


def test_quartiles_are_those_of_the_rounds_not_of_the_times(clock):
    one, other = clock.taking(1.0, 2.0, 3.0, 4.0, 5.0), clock.taking(1.0)
    found = measure({"one": one, "other": other}, rounds=5, warmup=0, clock=clock)
    assert found.ratio("one", "other") == pytest.approx((3, 2, 4))


def test_everyone_starts_a_round_in_turn(clock):
    order = []
    contenders = {name: clock.taking(1.0, then=lambda name=name: order.append(name)) for name in "abc"}
    measure(contenders, rounds=3, warmup=2, clock=clock)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab"


def test_threads_are_set_and_restored_also_after_a_failure(clock):
    before = torch.get_num_threads()
    seen = []
    contender = clock.taking(1.0, then=lambda: seen.append(torch.get_num_threads()))
    measure({"one": contender}, rounds=2, threads=before + 1, clock=clock)
    assert set(seen) == {before + 1}

    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure({"one": fails}, rounds=2, threads=before + 1)
    assert torch.get_num_threads() == before


def test_one_round_has_no_quartiles():
    with pytest.raises(ValueError, match="at least 2"):
        measure({"one": lambda: None}, rounds=1)
