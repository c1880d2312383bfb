"""`mcliplib benchmark memory`: peak memory on sets of real sizes."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from mcliplab.command import measure_and_record, print_progress
from mcliplib.cli.common import check_at_least, command_line


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("memory", help="MB at the peak: from phones' photographs to a model; a long stream")
    parser.add_argument("what", choices=["photos", "stream"])
    parser.add_argument("--photos", type=int, default=1000, help="of 12 to 49 megapixels (default: %(default)s)")
    parser.add_argument(
        "--samples", type=int, help="that training sees (default: each photo once; a stream of 200,000)"
    )
    parser.add_argument("--folder", type=Path, help="where gigabytes may be written (default: a temporary folder)")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and record if wanted."""
    if args.samples is None:
        args.samples = args.photos if args.what == "photos" else 200_000
    check_at_least(args, photos=10, samples=10)
    return measure_and_record(args, _measured, _record)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from mcliplab.benchmarks.memory import measure_photos, measure_reduction, measure_stream
    from mcliplib.checkpoints import load_model
    from mcliplib.evaluate import ModelEncoder

    with tempfile.TemporaryDirectory(prefix="mcliplib-", dir=args.folder) as name:
        folder = Path(name)
        if args.what == "stream":
            return measure_stream(folder, args.samples, print_progress)
        values = measure_photos(folder, args.photos, args.samples, print_progress)
        student = load_model("student")
        cosines = measure_reduction(folder / "photos", ModelEncoder(student)).cosines
        least, mean = min(cosines), sum(cosines) / len(cosines)
        values["reduced"] = {"pictures": len(cosines), "least_cosine": least, "mean_cosine": mean}
        print_progress(f"decoded reduced, {len(cosines)} pictures' features keep a cosine of {least:.4f} or more")
        return values


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    return results.record(
        args.record,
        values,
        unit="MB at the peak, resident",
        n=args.photos if args.what == "photos" else args.samples,
        seeds=[0],
        command=command_line(args),
        seconds=seconds,
    )
