"""Our towers against other packages', in interleaved rounds, and the table and record of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mcliplib.errors import UserError
from mcliplib.latency.flops import LayerCost, Machine, Share, tower_cost
from mcliplib.latency.peers import Peer, TowerKind, example_for, peer_run, tower_of
from mcliplib.latency.timing import Measurement, Spread, measure
from mcliplib.latency.tuning import WAYS, Candidate, Precision, Run, Way, fastest, prepare
from mcliplib.model import MobileCLIP
from mcliplib.reparam import reparameterize
from mcliplib.threads import using_threads

AS_TRAINED = "as_trained"  # the tower before folding, eager
UNITS = {
    "tower": "ms: milliseconds for one batch; ratio: time over the reference's time (both: median and quartiles of n "
    "rounds); cosine: with the float32 features of the tower as trained; cost: 1e9 operations for one batch (a "
    "multiplication and an addition are two), parameters; shares: for one batch, eager, by kind of operator",
    "machine": "gflops: 1e9 operations/s in the fastest product or convolution; gigabytes: 1e9 bytes/s read and "
    "written in a copy",
}


@dataclass(frozen=True)
class Comparison:
    """A tower's times and its peers'.

    Attributes:
        tower: "image" or "text".
        candidates: the ways that were tried.
        peers: names of the peers in the measurement.
        measurement: milliseconds of `as_trained`, of each way that ran, and of each peer.
        cost: parameters and operations of the folded tower for this batch.
    """

    tower: TowerKind
    candidates: tuple[Candidate, ...]
    peers: tuple[str, ...]
    measurement: Measurement
    cost: LayerCost

    @property
    def references(self) -> tuple[str, ...]:
        """The contenders that ratios are taken to: the peers, or the tower as trained where there is none."""
        return self.peers or (AS_TRAINED,)

    def best(self, precision: Precision | None = None) -> Candidate | None:
        """The fastest way of that precision (None: of any) that ran."""
        ran = any(one.run is not None and precision in (None, one.way.precision) for one in self.candidates)
        return fastest(self.candidates, self.measurement, precision) if ran else None


def compare(
    model: MobileCLIP,
    tower: TowerKind,
    *,
    peers: Sequence[Peer] = (),
    ways: Sequence[Way] = WAYS,
    rounds: int = 30,
    threads: int | None = None,
    batch: int = 1,
    progress: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Measure one tower of a model, folded and run in each way, and the peers' towers, in interleaved rounds.

    Args:
        model: in eval mode, not folded.
        tower: which of the two.
        peers: those for this tower.
        ways: how ours is run.
        rounds: samples of each contender.
        threads: PyTorch's threads; as they are if None.
        batch: images or texts at once.
        progress: told one line for each step.
        clock: seconds; tests pass their own.

    Raises:
        UserError: a peer has no such model, or none of ours runs.
    """
    ours, example = tower_of(model, tower), example_for(model, tower, batch)
    with using_threads(threads):
        theirs = {peer.name: peer_run(peer, model.config.name) for peer in peers}
        candidates = prepare(ours, example, ways, progress=progress)
        runs = {one.way.name: one.run for one in candidates if one.run is not None}
        if not runs:
            raise UserError(f"no way of running the {tower} tower is left; see the lines above")
        contenders: dict[str, Run] = {AS_TRAINED: ours, **runs, **theirs}
        calls = {name: _call(run, example) for name, run in contenders.items()}
        progress(f"{tower}: {rounds} rounds of {', '.join(calls)}")
        with torch.inference_mode():
            measurement = measure(calls, rounds=rounds, clock=clock)
    cost = tower_cost(reparameterize(ours), example)
    return Comparison(tower, tuple(candidates), tuple(theirs), measurement, cost)


def _call(run: Run, example: torch.Tensor) -> Callable[[], object]:
    return lambda: run(example)


def table(comparison: Comparison) -> str:
    """A line a contender, the fastest first, then what was dropped, then what the tower costs."""
    timed = comparison.measurement.samples
    width = max(map(len, timed)) + 2
    heads = "".join(f"  {'   over ' + name:<26}" for name in comparison.references)
    lines = [f"{comparison.tower} tower", f"  {'':<{width}}{'ms':>8} {'[quartiles]':<17} {'cosine':<9}{heads}".rstrip()]
    cosines = {one.way.name: one.cosine for one in comparison.candidates}
    for name in sorted(timed, key=lambda name: comparison.measurement.spread(name).median):
        cosine = cosines.get(name)
        ratios = "".join(f"  {_span(comparison.measurement.ratio(name, to), 3):<26}" for to in comparison.references)
        cosine_text = "" if cosine is None else f"{cosine:.6f}"
        lines.append(
            f"  {name:<{width}}{_span(comparison.measurement.spread(name), 2)} {cosine_text:<9}{ratios}".rstrip()
        )
    lines += [f"  {one.way.name}: dropped, {one.dropped}" for one in comparison.candidates if one.dropped is not None]
    lines.append(f"  folded: {comparison.cost.flops / 1e9:.2f} GFLOP, {comparison.cost.parameters:,} parameters")
    return "\n".join(lines)


def shares_table(rows: Sequence[Share], limits: Machine) -> str:
    """Where the eager folded tower's time goes."""
    lines = [
        f"  limits: {limits.gflops:.0f} GFLOP/s, {limits.gigabytes:.0f} GB/s",
        f"  {'operators':<24}{'calls':>6}{'ms':>9}{'limit ms':>10}{'GFLOP':>8}{'MB':>8}",
    ]
    for row in rows:
        lines.append(f"  {row.kind:<24}{row.calls:>6}{row.milliseconds:>9.2f}{row.bound:>10.2f}"
                     f"{row.gflop:>8.2f}{row.megabytes:>8.1f}")  # fmt: skip
    return "\n".join(lines)


def values(comparison: Comparison) -> dict[str, Any]:
    """The members `ms`, `ratio`, `cosine`, `dropped`, `best` and `cost` of a tower's record."""
    timed = comparison.measurement
    return {
        "ms": {name: timed.spread(name)._asdict() for name in timed.samples},
        "ratio": {
            to: {name: timed.ratio(name, to)._asdict() for name in timed.samples if name != to}
            for to in comparison.references
        },
        "cosine": {one.way.name: one.cosine for one in comparison.candidates if one.run is not None},
        "dropped": {one.way.name: one.dropped for one in comparison.candidates if one.dropped is not None},
        "best": dict(_best(comparison)),
        "cost": {"gflop": comparison.cost.flops / 1e9, "parameters": comparison.cost.parameters},
    }


def share_values(rows: Sequence[Share]) -> dict[str, Any]:
    """Each kind of operator's numbers."""
    return {row.kind: {key: value for key, value in row._asdict().items() if key != "kind"} for row in rows}


def _best(comparison: Comparison) -> Iterator[tuple[str, dict[str, Any]]]:
    for label, precision in (("any", None), ("float32", "float32"), ("bfloat16", "bfloat16")):
        if (one := comparison.best(precision)) is not None:  # type: ignore[arg-type]
            name = one.way.name
            ratios = {to: comparison.measurement.ratio(name, to)._asdict() for to in comparison.references}
            yield label, {"way": name, "ms": comparison.measurement.spread(name).median, "ratio": ratios}


def _span(spread: Spread, digits: int) -> str:
    quartiles = f"[{spread.low:.{digits}f}, {spread.high:.{digits}f}]"
    return f"{spread.median:8.{digits}f} {quartiles:<17}"
