"""`mcliplib benchmark released`: the time of every released model on this machine."""

import argparse
from pathlib import Path
from typing import Any

from mcliplab.command import measure_and_record, print_progress
from mcliplib.cli.common import check_at_least, command_line


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("released", help="both towers of every released model, beside open_clip's ViT-B-16")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="PyTorch's threads (default: %(default)s)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw accuracy and time, as the paper does (.svg)")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, draw and record."""
    check_at_least(args, rounds=2, threads=1)
    return measure_and_record(args, _measured, _record)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from mcliplab.benchmarks.released import measure, published
    from mcliplab.figures.accuracy_latency import draw_accuracy_latency

    values = measure(rounds=args.rounds, threads=args.threads, progress=print_progress)
    for name, row in values.items():
        image, text = row["image"], row["text"]
        print(f"{name:<18}{image['ms']['median']:>8.1f} + {text['ms']['median']:>6.1f} ms, over ViT-B-16's "
              f"{image['ratio']['median']:.2f} and {text['ratio']['median']:.2f}")  # fmt: skip
    if args.picture:
        draw_accuracy_latency(values, published()).savefig(args.picture)
    return values


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    return results.record(
        args.record,
        values,
        unit="ms: milliseconds for one picture or text (median, quartiles, p90); ratio: to open_clip's ViT-B-16",
        n=args.rounds,
        seeds=[0],
        command=command_line(args),
        seconds=seconds,
    )
