"""`mcliplib benchmark search`: what is found, pictures indexed in a second, and milliseconds of a query."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from mcliplab.command import measure_and_record, print_progress
from mcliplib.cli.common import check_at_least, command_line
from mcliplib.errors import UserError

_FOUND_IN = ("emoji-fluent-seen", "emoji-fluent-unseen")
_RELEASED, _SIDE = "random:mobileclip_s0", 640  # pixels, of pictures on web pages


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("search", help="pictures indexed in a second; queries of up to a million vectors")
    parser.add_argument("--pictures", type=int, default=4000, help="to index, at most (default: %(default)s)")
    parser.add_argument("--released", type=int, default=1000, help="for S0 with random weights (default: %(default)s)")
    parser.add_argument("--sizes", default="1000,100000,1000000", help="numbers of vectors (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=200, help="for each way of asking (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where gigabytes may be written (default: a temporary folder)")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and record if wanted."""
    check_at_least(args, pictures=1, released=1, queries=2)
    try:
        args.counts = [int(one) for one in args.sizes.split(",")]
    except ValueError:
        raise UserError(f"--sizes are numbers with commas between, got {args.sizes!r}") from None
    if min(args.counts) < 10:
        raise UserError("--sizes must be at least 10")
    return measure_and_record(args, _measured, _record)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from mcliplab.benchmarks.search import measure_finding, measure_indexing, measure_queries

    with tempfile.TemporaryDirectory(prefix="mcliplib-", dir=args.folder) as name:
        folder = Path(name)
        finding = {one: measure_finding(folder, one, print_progress) for one in _FOUND_IN}
        indexing = measure_indexing(folder, args.pictures, print_progress)
        released = measure_indexing(folder, args.released, print_progress, model=_RELEASED, side=_SIDE)
        queries = {str(size): measure_queries(folder, size, args.queries, print_progress) for size in args.counts}
        return {"finding": finding, "indexing": indexing, "released": released, "queries": queries}


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    return results.record(
        args.record,
        values,
        unit={
            "finding": "share of captions with a right picture among the first 10",
            "indexing": "a second; bytes",
            "released": "a second; bytes; a released architecture with random weights, pictures as JPEGs",
            "queries": "ms; s; MB; recall of the 10 nearest of exact float32, 0 to 1",
        },
        n=args.queries,
        seeds=[0],
        command=command_line(args),
        seconds=seconds,
    )
