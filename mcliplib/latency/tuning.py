"""The fastest way of running a tower on this machine, found by trying; and the ways, in one table.

A way takes a folded tower and an example of its input, and gives a function from such an input to features in
float32. It leaves the tower as it is. What a way does is one short function; what it needs is said by `missing`.
"""

import copy
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mcliplib.errors import UserError, first_line
from mcliplib.latency.timing import Measurement, Spread, measure
from mcliplib.layers.cpu import optimize_for_cpu
from mcliplib.reparam import reparameterize
from mcliplib.threads import using_threads

Precision = Literal["float32", "bfloat16"]
Run = Callable[[Tensor], Tensor]
MIN_COSINE = 0.999


def always() -> None:
    """Nothing is missing for plain PyTorch."""


@dataclass(frozen=True)
class Way:
    """A way of running a tower.

    Attributes:
        name: in tables and records.
        precision: of the weights and activations.
        prepare: folded tower and example input -> function of inputs of that shape.
        missing: what this machine lacks for it, None if nothing.
    """

    name: str
    precision: Precision
    prepare: Callable[[nn.Module, Tensor], Run]
    missing: Callable[[], str | None]


def eager(tower: nn.Module, example: Tensor, *, dtype: torch.dtype = torch.float32) -> Run:
    """Operator by operator, weights and activations in `dtype`."""
    return _run(_cast(tower, dtype), dtype)


def autocast(tower: nn.Module, example: Tensor) -> Run:
    """Eager; PyTorch chooses the operators that compute in bfloat16."""
    run = eager(tower, example)

    def cast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return run(x).float()

    return cast


def compiled(tower: nn.Module, example: Tensor, *, dtype: torch.dtype = torch.float32) -> Run:
    """TorchInductor with frozen weights: packed once into oneDNN's layout, GELUs and sums fused into what precedes.

    Exporting first gives every tower code of its own: dynamo keeps its graphs by code object, and would otherwise
    go through those of all ways prepared before. The code is made for the present number of threads.
    """
    program = torch.export.export(_cast(tower, dtype), (_like(example, dtype),)).module()
    run = _run(torch.compile(program, dynamic=False), dtype)
    # Freezing is read from the global settings: as an option of `torch.compile` it has no effect.
    with _inductor():
        run(example)
    return run


def ahead_of_time(tower: nn.Module, example: Tensor, *, dtype: torch.dtype = torch.float32) -> Run:
    """As `compiled`, into a library (AOTInductor): no guards, no Python between the kernels.

    In float32 it also takes oneDNN's linear layer where `compiled` takes MKL's, which is the slower one on AMD.
    """
    program = torch.export.export(_cast(tower, dtype), (_like(example, dtype),))
    with tempfile.TemporaryDirectory() as directory, _inductor():
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(directory) / "tower.pt2"))
        return _run(torch._inductor.aoti_load_package(path), dtype)


def no_compiler() -> str | None:
    """Say what TorchInductor's code lacks here: it calls the C++ compiler that `CXX` names, else g++ or clang++."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return None if any(map(shutil.which, wanted)) else f"no C++ compiler ({' or '.join(wanted)})"


def _cast(tower: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(tower).eval().requires_grad_(False).to(dtype)


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels in `dtype`; token ids as they are."""
    return x.to(dtype) if x.is_floating_point() else x


def _run(call: Callable[[Any], Tensor], dtype: torch.dtype) -> Run:
    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return call(_like(x, dtype)).float()

    return run


@contextmanager
def _inductor() -> Iterator[None]:
    import torch._inductor.config as config

    with config.patch(freezing=True), torch.inference_mode():
        yield


def _way(name: str, prepare: Callable[..., Run], missing: Callable[[], str | None], *, bf16: bool = False) -> Way:
    if bf16:
        return Way(f"{name}_bf16", "bfloat16", functools.partial(prepare, dtype=torch.bfloat16), missing)
    return Way(name, "float32", prepare, missing)


WAYS: tuple[Way, ...] = (
    _way("eager", eager, always),
    _way("compiled", compiled, no_compiler),
    _way("ahead_of_time", ahead_of_time, no_compiler),
    Way("autocast_bf16", "bfloat16", autocast, always),
    _way("eager", eager, always, bf16=True),
    _way("compiled", compiled, no_compiler, bf16=True),
    _way("ahead_of_time", ahead_of_time, no_compiler, bf16=True),
)


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
    """The result of `tune`.

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
        """Milliseconds of the fastest way."""
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
        return Candidate(way, None, None, f"{type(error).__name__}: {first_line(error)}")
    if not cosine >= min_cosine:  # NaN is not faithful either
        return Candidate(way, None, cosine, f"cosine {cosine:.6f} is below {min_cosine}")
    return Candidate(way, run, cosine)


def _bound(candidate: Candidate, example: Tensor) -> Callable[[], Tensor]:
    run = candidate.run
    assert run is not None
    return lambda: run(example)
