"""How fast the towers run, what limits them, and which way of running them is the fastest on this machine."""

from mcliplib.latency.comparison import Comparison, compare
from mcliplib.latency.flops import LayerCost, Machine, Share, machine, shares, tower_cost
from mcliplib.latency.peers import PEERS, Peer
from mcliplib.latency.timing import Measurement, Spread, measure
from mcliplib.latency.tuning import WAYS, Candidate, Tuned, Way, tune

__all__ = [
    "PEERS",
    "WAYS",
    "Candidate",
    "Comparison",
    "LayerCost",
    "Machine",
    "Measurement",
    "Peer",
    "Share",
    "Spread",
    "Tuned",
    "Way",
    "compare",
    "machine",
    "measure",
    "shares",
    "tower_cost",
    "tune",
]
