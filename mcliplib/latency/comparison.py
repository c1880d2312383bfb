"""One tower of ours, in one way or in all, against the peers' towers: measured in the same rounds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mcliplib.errors import UserError
from mcliplib.latency.flops import LayerCost, tower_cost
from mcliplib.latency.inputs import example_for, tower_of
from mcliplib.latency.peers import Peer, TowerKind, peer_run
from mcliplib.latency.timing import Measurement, measure
from mcliplib.latency.tuning import Candidate, fastest, prepare
from mcliplib.latency.ways import WAYS, Precision, Run, Way
from mcliplib.model import MobileCLIP
from mcliplib.reparam import reparameterize
from mcliplib.threads import using_threads

AS_TRAINED = "as_trained"  # the tower before folding, eager


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
        """What ratios are taken to: the peers, or the tower as trained where there is none."""
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
