"""How fast the towers run, what limits them, and which way of running them is the fastest on this machine."""

from mcliplib.latency.comparison import Comparison, compare
from mcliplib.latency.flops import LayerCost, layer_costs, tower_cost
from mcliplib.latency.peers import PEERS, Peer
from mcliplib.latency.roofline import Machine, Share, machine, shares
from mcliplib.latency.timing import Measurement, Spread, measure
from mcliplib.latency.tuning import Candidate, Tuned, tune
from mcliplib.latency.ways import WAYS, Way

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
    "layer_costs",
    "machine",
    "measure",
    "shares",
    "tower_cost",
    "tune",
]
