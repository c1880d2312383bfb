"""`mcliplib evaluate`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplib.errors import UserError
from mcliplib.files import check_replaceable, write_text
from mcliplib.images import MAX_PIXELS, PictureError, read_picture

if TYPE_CHECKING:
    from mcliplib.data import Sample
    from mcliplib.evaluate import Score

MODEL = (
    "student (ours), a checkpoint (ours, a released mobileclip_*.pt, or open_clip's), a training run's folder, or "
    "hf-hub:OWNER/REPO"
)


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("evaluate", help="zero-shot and retrieval scores of a model")
    parser.add_argument("--model", required=True, help=MODEL)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--suite", default="mini", help="'mini' (all evaluation sets) or one data set's name")
    what.add_argument(
        "--data", help="your own pictures instead: a folder or list of them with captions, or shards; for retrieval"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help="leave larger pictures out (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="write the scores to this JSON file too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print a table."""
    from mcliplib.checkpoints import load_model
    from mcliplib.evaluate import ModelEncoder, evaluate_suite
    from mcliplib.evaluate.suite import caption_retrieval, metrics, score_values

    if args.output is not None:
        check_replaceable(args.output)
    model = load_model(args.model)
    if args.data is None:
        scores = evaluate_suite(model, args.suite, progress=lambda name: print(f"evaluating {name}", file=sys.stderr))
    else:
        samples = own_samples(args.data, args.max_pixels, side=2 * model.config.image.image_size)
        scores = {f"{args.data}/retrieval": metrics(caption_retrieval(ModelEncoder(model), samples))}
    print(table(scores))
    if args.output is not None:
        write_text(args.output, json.dumps(score_values(scores), indent=2) + "\n")
        print(f"written to {args.output}")
    return 0


def own_samples(data: str, max_pixels: int, side: int) -> "list[Sample]":
    """A user's pictures with captions; what cannot be used is counted on stderr.

    Args:
        data: as `mcliplib reinforce --input` takes it.
        max_pixels: of a picture.
        side: pixels to which the shorter side is shrunk, for less memory.

    Raises:
        UserError: there are none.
    """
    from mcliplib.data import Sample
    from mcliplib.data.reader import ReadReport, Skip
    from mcliplib.reinforce.sources import find_sources, usable

    report, samples = ReadReport(), []
    for source in find_sources(data, shard_size=1000):
        for raw in usable(source, report, max_skipped=1.0):
            try:
                image = read_picture(raw.image, max_pixels=max_pixels, side=side).image
            except PictureError as error:
                report.read -= 1
                report.skip(Skip(source.name, raw.key, error.reason), max_skipped=1.0)
            else:
                samples.append(Sample(raw.key, image, raw.caption, raw.meta))
    if report.skipped or report.broken_shards:
        print(report, file=sys.stderr)
    if not samples:
        raise UserError(f"{data}: holds no picture with a caption that can be used")
    return samples


def table(scores: "dict[str, dict[str, Score]]") -> str:
    """A line a metric: per cent, with the 95% bootstrap interval."""
    lines = []
    for task, row in scores.items():
        lines.append(task)
        for metric, value in row.items():
            interval = f"[{100 * value.low:5.1f}, {100 * value.high:5.1f}]"
            lines.append(f"  {metric:<20} {100 * value:5.1f}%  {interval}  n={value.n}")
    return "\n".join(lines)
