"""`mcliplib benchmark latency|runtimes`, and the workshop's benchmarks: measurements on this machine."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mcliplib.cli import runtimes
from mcliplib.cli.common import check_at_least, command_line
from mcliplib.cli.common import register as register_module
from mcliplib.errors import UserError
from mcliplib.results import check_name

if TYPE_CHECKING:
    from mcliplib.latency import Comparison
    from mcliplib.latency.peers import Peer
    from mcliplib.model import MobileCLIP

_TOWERS: tuple[Literal["image", "text"], ...] = ("image", "text")


def register(commands: Any) -> None:
    """Add `benchmark` with its subcommands."""
    parser = commands.add_parser("benchmark", help="measure speed on this machine")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _register_latency(actions)
    runtimes.register(actions)
    for name in ("int8", "loader", "memory", "reinforce", "released", "robustness", "search", "train"):
        register_module(actions, name, f"mcliplab.benchmarks.cli_{name}")


def _register_latency(actions: Any) -> None:
    latency = actions.add_parser("latency", help="milliseconds of the towers, against other packages'")
    latency.add_argument(
        "--model", default="mobileclip_s0", help="a model's name or a .safetensors checkpoint (default: %(default)s)"
    )
    latency.add_argument("--tower", choices=[*_TOWERS, "both"], default="both", help="default: %(default)s")
    latency.add_argument(
        "--against", default="", metavar="PEERS", help="of timm (image) and open_clip (text), with commas between"
    )
    latency.add_argument("--tune", action="store_true", help="try every way of running the towers; takes minutes")
    latency.add_argument("--roofline", action="store_true", help="also tell where the time goes, and the limits")
    latency.add_argument("--rounds", type=int, default=30, help="interleaved runs of each (default: %(default)s)")
    latency.add_argument("--threads", type=int, default=2, help="PyTorch's threads (default: %(default)s)")
    latency.add_argument("--batch", type=int, default=1, help="images or texts at once (default: %(default)s)")
    latency.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    latency.set_defaults(run=run_latency, parser=latency)


def run_latency(args: argparse.Namespace) -> int:
    """Measure, print one table for each tower, and record if wanted."""
    from mcliplib.latency import WAYS, compare
    from mcliplib.latency import comparison as report
    from mcliplib.latency.contenders import seeded_model

    _check(args)
    start = time.perf_counter()
    towers = [tower for tower in _TOWERS if args.tower in (tower, "both")]
    peers = _peers(args.against, towers)
    model = seeded_model(args.model)
    values: dict[str, Any] = {}
    for tower in towers:
        comparison = compare(
            model,
            tower,
            peers=[peer for peer in peers if peer.tower == tower],
            ways=WAYS if args.tune else WAYS[:1],
            rounds=args.rounds,
            threads=args.threads,
            batch=args.batch,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
        print(report.table(comparison), flush=True)
        values[tower] = report.values(comparison)
        if args.roofline:
            values |= _roofline(args, model, comparison, values[tower])
    if args.record:
        print(f"recorded in {_record(args, values, time.perf_counter() - start)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    check_at_least(args, rounds=2, threads=1, batch=1)
    if args.record:
        check_name(args.record)  # before minutes are spent on what could not be written


def _peers(against: str, towers: Sequence[str]) -> "list[Peer]":
    from mcliplib.latency.peers import get_peer

    peers = [get_peer(name.strip()) for name in against.split(",") if name.strip()]
    for peer in peers:
        if peer.tower not in towers:
            raise UserError(f"{peer.name} is compared in the {peer.tower} tower only; add --tower {peer.tower}")
    return peers


def _roofline(
    args: argparse.Namespace, model: "MobileCLIP", comparison: "Comparison", values: dict[str, Any]
) -> dict[str, Any]:
    """Print and note where the eager folded tower's time goes; the machine's limits."""
    from mcliplib.latency import comparison as report
    from mcliplib.latency import machine, shares
    from mcliplib.latency.peers import example_for, tower_of
    from mcliplib.layers.cpu import optimize_for_cpu
    from mcliplib.reparam import reparameterize
    from mcliplib.threads import using_threads

    with using_threads(args.threads):
        limits = machine()
        folded = optimize_for_cpu(reparameterize(tower_of(model, comparison.tower)))
        rows = shares(folded, example_for(model, comparison.tower, args.batch), limits)
    print(report.shares_table(rows, limits), flush=True)
    values["shares"] = report.share_values(rows)
    return {"machine": limits._asdict()}


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results
    from mcliplib.latency.comparison import UNITS
    from mcliplib.latency.peers import SEED

    unit = {name: UNITS["machine"] if name == "machine" else UNITS["tower"] for name in values}
    command = command_line(args)
    return results.record(args.record, values, unit=unit, n=args.rounds, seeds=[SEED], command=command, seconds=seconds)
