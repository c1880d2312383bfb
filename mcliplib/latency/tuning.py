"""The fastest way of running a tower on this machine, found by trying."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mcliplib.errors import UserError
from mcliplib.latency.timing import Measurement, Spread, measure
from mcliplib.latency.ways import WAYS, Precision, Run, Way
from mcliplib.layers.cpu import optimize_for_cpu
from mcliplib.reparam import reparameterize
from mcliplib.threads import using_threads

MIN_COSINE = 0.999


@dataclass(frozen=True)
class Candidate:
    """A way, prepared for one tower.

    Attributes:
        way: how the tower is run.
        run: input -> features in float32; None where the way was dropped.
        cosine: the smallest cosine, over the example's rows, with the eager float32 features; None if it never ran.
        dropped: why it does not take part, None if it does.
    """

    way: Way
    run: Run | None
    cosine: float | None
    dropped: str | None = None


@dataclass(frozen=True)
class Tuned:
    """What `tune` found.

    Attributes:
        best: the fastest candidate.
        candidates: all ways, those that were dropped included.
        measurement: milliseconds by name of the way.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    measurement: Measurement

    def run(self, x: Tensor) -> Tensor:
        """The tower, in the fastest way: an input of the example's shape -> features in float32."""
        assert self.best.run is not None
        return self.best.run(x)

    @property
    def milliseconds(self) -> Spread:
        """Of the fastest way."""
        return self.measurement.spread(self.best.way.name)


def tune(
    tower: nn.Module,
    example: Tensor,
    *,
    min_cosine: float = MIN_COSINE,
    precision: Precision | None = None,
    rounds: int = 30,
    threads: int | None = None,
    ways: Sequence[Way] = WAYS,
    progress: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuned:
    """Fold a tower and try each way of running it; the fastest that is faithful wins.

    Args:
        tower: an image or text tower in eval mode, folded or not, on the CPU; it is left as it is.
        example: pixels [B, 3, H, W] or tokens [B, T]; a way is prepared for this shape.
        min_cosine: the features' least cosine with the eager float32 ones.
        precision: only ways of this precision; any if None.
        rounds: interleaved runs of each way.
        threads: PyTorch's threads while preparing and measuring; as they are if None.
        ways: what to try.
        progress: told one line for each step.
        clock: seconds; tests pass their own.

    Raises:
        UserError: no way is left.
    """
    wanted = [way for way in ways if precision in (None, way.precision)]
    with using_threads(threads):
        candidates = prepare(tower, example, wanted, min_cosine=min_cosine, progress=progress)
        running = {one.way.name: one for one in candidates if one.run is not None}
        if not running:
            raise UserError("no way of running the tower is left: " + "; ".join(map(describe, candidates)))
        calls = {name: _bound(one, example) for name, one in running.items()}
        progress(f"{rounds} rounds of {', '.join(calls)}")
        measurement = measure(calls, rounds=rounds, clock=clock)
    return Tuned(fastest(candidates, measurement), tuple(candidates), measurement)


def prepare(
    tower: nn.Module,
    example: Tensor,
    ways: Sequence[Way],
    *,
    min_cosine: float = MIN_COSINE,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Candidate]:
    """Every way, prepared for the folded tower and checked against the tower itself; see `tune` for the arguments."""
    with torch.inference_mode():
        expected = tower(example)
    folded = optimize_for_cpu(reparameterize(tower))
    candidates = []
    for way in ways:
        start = time.perf_counter()
        candidates.append(_candidate(way, folded, example, expected, min_cosine))
        progress(f"{describe(candidates[-1])} ({time.perf_counter() - start:.0f} s)")
    return candidates


def fastest(candidates: Sequence[Candidate], measurement: Measurement, precision: Precision | None = None) -> Candidate:
    """The candidate with the smallest median, of one precision or of any.

    Raises:
        ValueError: none was measured.
    """
    measured = [one for one in candidates if one.run is not None and precision in (None, one.way.precision)]
    return min(measured, key=lambda one: measurement.spread(one.way.name).median)


def describe(candidate: Candidate) -> str:
    """One line: the way and its cosine, or why it was dropped."""
    if candidate.dropped is not None:
        return f"{candidate.way.name}: dropped, {candidate.dropped}"
    return f"{candidate.way.name}: cosine {candidate.cosine:.6f}"


def _candidate(way: Way, folded: nn.Module, example: Tensor, expected: Tensor, min_cosine: float) -> Candidate:
    if (lack := way.missing()) is not None:
        return Candidate(way, None, None, lack)
    try:
        run = way.prepare(folded, example)
        cosine = float(nn.functional.cosine_similarity(run(example), expected, dim=-1).min())
    except Exception as error:  # a compiler has many ways to fail, and none may end the search
        return Candidate(way, None, None, f"{type(error).__name__}: {_first_line(error)}")
    if not cosine >= min_cosine:  # NaN is not faithful either
        return Candidate(way, None, cosine, f"cosine {cosine:.6f} is below {min_cosine}")
    return Candidate(way, run, cosine)


def _bound(candidate: Candidate, example: Tensor) -> Callable[[], Tensor]:
    run = candidate.run
    assert run is not None
    return lambda: run(example)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
