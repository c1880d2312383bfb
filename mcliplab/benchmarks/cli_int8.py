"""`mcliplib benchmark int8`: the cost and the gain of each step of quantizing."""

import argparse
from pathlib import Path
from typing import Any

from mcliplab.command import measure_and_record, print_progress
from mcliplib.cli.common import command_line
from mcliplib.cli.evaluate import MODEL


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("int8", help="scores and sizes of an image tower, step by step from float to int8")
    parser.add_argument("--model", default="student", help=f"{MODEL} (default: %(default)s)")
    parser.add_argument("--random-weights", action="store_true", help="let --model be a preset's name: features only")
    parser.add_argument(
        "--calibrate",
        default="tuxpaint-train",
        metavar="FOLDER",
        help="pictures, or a set's name (default: %(default)s)",
    )
    parser.add_argument("--pictures", type=int, default=300, help="to calibrate on, at most (default: %(default)s)")
    parser.add_argument("--nncf", action="store_true", help="OpenVINO's own quantizer too (pip install nncf)")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and record if wanted."""
    return measure_and_record(args, _measured, _record)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from mcliplab.benchmarks.int8 import measure
    from mcliplib.export.exporting import tower_inputs
    from mcliplib.export.verify import calibration_inputs
    from mcliplib.latency.contenders import seeded_model

    model = seeded_model(args.model)
    pixels = tower_inputs(model, "image", calibration_inputs(args.calibrate, args.pictures))
    return measure(model, pixels, scored=not args.random_weights, nncf=args.nncf, progress=print_progress)


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    about = "bytes; cosine to the float features; shares with 95% intervals; change: of the mean over the tasks, paired"
    return results.record(
        args.record,
        values,
        unit={
            "float": about,
            "steps": about,
            "drawn": about,
            "spread": "largest over median range of a layer's output channels",
        },
        n=args.pictures,
        seeds=[0],
        command=command_line(args),
        seconds=seconds,
    )
