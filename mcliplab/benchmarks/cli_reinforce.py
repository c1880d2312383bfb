"""`mcliplib benchmark reinforce`: what each part of reinforcing a set costs on this machine."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplab.command import measure_and_record
from mcliplib.cli.common import check_at_least, command_line
from mcliplib.errors import UserError

if TYPE_CHECKING:
    from mcliplib.latency.timing import Spread
    from mcliplib.reinforce import Captioner

_SHAPES = {"paper_10": (10, 5, (768, 768)), "paper_30": (30, 5, (768, 768)), "ours": (10, 5, (384, 384))}
_UNITS = {
    "milliseconds": "processor's milliseconds in one thread, for one picture, view, text, caption or sample",
    "pictures": "mean bytes and mean pixels of a picture",
    "bytes": "bytes of a sample in a tar, without its picture",
    "fidelity": "change of a cosine; of a probability at scale 100, of each view over all pictures' captions",
    "operations": "floating-point operations of one input; a multiplication and an addition are two",
    "skipped": "reason",
}


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("reinforce", help="milliseconds of each part of reinforcing a set, in one thread")
    parser.add_argument("--data", nargs="+", default=["train"], help="data sets or shards (default: train)")
    parser.add_argument("--pictures", type=int, default=128, help="of the data (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="inputs of a part at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved calls of each part (default: %(default)s)")
    parser.add_argument("--captioner", default="decoder", help="or none (default: %(default)s)")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and record if wanted."""
    check_at_least(args, rounds=2, batch=1, pictures=max(2, args.batch))
    return measure_and_record(args, _measured, _record)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    import tempfile
    from dataclasses import asdict

    from mcliplab.benchmarks import reinforcing
    from mcliplab.benchmarks.operations import paper_operations
    from mcliplab.benchmarks.storage import DTYPES, sample_bytes
    from mcliplib.data import shard_paths
    from mcliplib.reinforce import make_teacher
    from mcliplib.reinforce.teachers import ENSEMBLE

    settings = reinforcing.ReinforcingSettings(args.pictures, args.batch, rounds=args.rounds)
    shards = [path for name in args.data for path in shard_paths(name)]
    chosen = reinforcing.pictures(shards, settings.pictures)
    teachers = [make_teacher(spec) for spec in ENSEMBLE]
    captioner, skipped = _captioner(args.captioner)
    with tempfile.TemporaryDirectory(prefix="mcliplib-") as folder:
        parts = reinforcing.measure_parts(chosen, teachers, captioner, settings, Path(folder))
    _print_parts(parts, skipped)
    found = reinforcing.real_fidelity(chosen, teachers, settings)
    for name, one in found.items():
        print(f"{name:20} moves {one.moved_mean:.1e} of a view's probability, at most {one.change_largest:.1e} at once")
    return {
        "milliseconds": {name: one._asdict() for name, one in parts.items()},
        "pictures": reinforcing.about(chosen),
        "bytes": {
            name: {dtype: sample_bytes(n, m, dtype, dims) for dtype in DTYPES} for name, (n, m, dims) in _SHAPES.items()
        },
        "fidelity": {name: one._asdict() for name, one in found.items()},
        "operations": asdict(paper_operations()),
        "skipped": skipped,
    }


def _captioner(spec: str) -> "tuple[Captioner | None, dict[str, str]]":
    """The captioner, or why there is none."""
    if spec == "none":
        return None, {}
    from mcliplib.reinforce.captioners import make_captioner

    try:
        return make_captioner(spec), {}
    except UserError as error:
        print(f"without captions: {error}", file=sys.stderr)
        return None, {"captioner": str(error)}


def _print_parts(parts: "Mapping[str, Spread]", skipped: Mapping[str, str]) -> None:
    for name, time_of in parts.items():
        print(f"{name:20} {time_of.median:9.3f} ms   [{time_of.low:.3f}, {time_of.high:.3f}]")
    for name, reason in skipped.items():
        print(f"{name:20} left out: {reason}")


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    command = command_line(args)
    return results.record(args.record, values, unit=_UNITS, n=args.rounds, seeds=[0], command=command, seconds=seconds)
