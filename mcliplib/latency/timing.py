"""Interleaved timing: on a machine whose speed drifts, only contenders that take turns can be compared.

A round runs every contender once; the next round starts with the next contender. Ratios are taken within a round, so
that a slow second slows both sides, and are told as a median with quartiles.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mcliplib.threads import using_threads

MIN_ROUNDS = 2  # quartiles need two samples


class Spread(NamedTuple):
    """A sample's middle and its quartiles."""

    median: float
    low: float  # first quartile
    high: float  # third quartile


@dataclass(frozen=True)
class Measurement:
    """The result of `measure`.

    Attributes:
        samples: milliseconds per contender, one for each round, in the order of the rounds.
    """

    samples: Mapping[str, tuple[float, ...]]

    def spread(self, name: str) -> Spread:
        """A contender's milliseconds."""
        return spread(self.samples[name])

    def decile(self, name: str) -> float:
        """The milliseconds that nine of ten runs of a contender stay below (p90)."""
        return statistics.quantiles(self.samples[name], n=10, method="inclusive")[-1]

    def ratio(self, name: str, to: str) -> Spread:
        """A contender's time over another's, round by round."""
        return spread([mine / theirs for mine, theirs in zip(self.samples[name], self.samples[to], strict=True)])


def measure(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Time callables in interleaved rounds.

    Args:
        contenders: what to run, by name.
        rounds: samples per contender, at least 2.
        warmup: runs of each before the first round; they are not counted.
        threads: PyTorch's threads during the measurement; as they are if None.
        clock: seconds; tests pass their own.

    Raises:
        ValueError: fewer than two rounds.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"rounds must be at least {MIN_ROUNDS}, got {rounds}")
    names = list(contenders)
    samples: dict[str, list[float]] = {name: [] for name in names}
    with using_threads(threads):
        for name in names:
            for _ in range(warmup):
                contenders[name]()
        for _, name in turns(names, rounds):
            start = clock()
            contenders[name]()
            samples[name].append(1e3 * (clock() - start))
    return Measurement({name: tuple(values) for name, values in samples.items()})


def turns(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """The round and the name of each turn: everyone has one a round, and each round begins with the next one."""
    for index in range(rounds):
        first = index % max(1, len(names))
        for name in [*names[first:], *names[:first]]:
            yield index, name


def spread(values: list[float] | tuple[float, ...]) -> Spread:
    """Median and quartiles of at least two values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)
