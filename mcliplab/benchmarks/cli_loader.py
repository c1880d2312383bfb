"""`mcliplib benchmark loader`: milliseconds of a training batch, plain and reinforced."""

import argparse
from pathlib import Path
from typing import Any, get_args

from mcliplab.command import measure_and_record
from mcliplib.cli.common import check_at_least, command_line
from mcliplib.reinforce.sample import EmbeddingDType


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("loader", help="milliseconds of a training batch, plain and reinforced, in one thread")
    parser.add_argument("--data", nargs="+", default=["train"], help="data sets or shards (default: train)")
    parser.add_argument("--samples", type=int, default=512, help="pictures (default: %(default)s)")
    parser.add_argument(
        "--picture-size", type=int, default=512, help="store JPEGs of this longer side; 0: as they are (default: 512)"
    )
    parser.add_argument("--batch", type=int, default=64, help="pairs in a batch (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=96, help="pixels (default: %(default)s)")
    parser.add_argument(
        "--dtype", choices=get_args(EmbeddingDType), default="bfloat16", help="of the embeddings (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=30, help="interleaved batches of each (default: %(default)s)")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and record if wanted."""
    check_at_least(args, rounds=2, batch=2, samples=args.batch, image_size=32, picture_size=0)
    return measure_and_record(args, _measured, _record)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    from mcliplab.benchmarks.loader import PLAIN, LoaderSettings, compare_loaders
    from mcliplib.data import shard_paths

    picture_size = args.picture_size or None
    settings = LoaderSettings(args.samples, picture_size, args.batch, args.image_size, args.dtype, args.rounds)
    with tempfile.TemporaryDirectory(prefix="mcliplib-") as folder:
        measurement = compare_loaders(
            (path for name in args.data for path in shard_paths(name)), settings, Path(folder)
        )
    values = {}
    for name in measurement.samples:
        reference = PLAIN[0] if name.endswith("from shards") else PLAIN[1]
        time_of, ratio = measurement.spread(name), measurement.ratio(name, to=reference)
        rate = 1e3 * args.batch / time_of.median
        values[name] = {"milliseconds": time_of._asdict(), "samples_per_second": rate, "ratio": ratio._asdict()}
        print(
            f"{name:30} {rate:8,.0f} samples/s   {ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] of {reference}"
        )
    return values


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    return results.record(
        args.record,
        values,
        unit="milliseconds of a batch; samples a second in one thread; ratio of the times to the plain loader's",
        n=args.rounds,
        seeds=[0],
        command=command_line(args),
        seconds=seconds,
    )
