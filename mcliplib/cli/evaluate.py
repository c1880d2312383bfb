"""`mcliplib evaluate`."""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mcliplib.errors import UserError
from mcliplib.files import check_replaceable, write_text
from mcliplib.images import MAX_PIXELS, PictureError, read_picture

if TYPE_CHECKING:
    from mcliplib.evaluate import Encoder, Score
    from mcliplib.evaluate.datacomp import Line

MODEL = (
    "student (ours), a checkpoint (ours, a released mobileclip_*.pt, or open_clip's), a training run's folder, or "
    "hf-hub:OWNER/REPO"
)
_SUITE = (
    "'mini' (all our evaluation sets, the default) or one data set's name; with --root 'datacomp38' (then the default) "
    "or the NAME of a folder wds_NAME"
)


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("evaluate", help="zero-shot and retrieval scores of a model")
    of = parser.add_mutually_exclusive_group(required=True)
    of.add_argument("--model", help=f"{MODEL}; a folder of mcliplib export; or open_clip:NAME/TAG, with a tag or file")
    of.add_argument("--results", type=Path, help="no model: an earlier --output of datacomp38, for --against")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--suite", help=_SUITE)
    what.add_argument(
        "--data", help="your own pictures instead: a folder or list of them with captions, or shards; for retrieval"
    )
    parser.add_argument("--root", help="folder or URL with sets in CLIP_benchmark's layout; {name} may stand in it")
    parser.add_argument(
        "--cache", type=Path, help="with --root: a folder that keeps features, so that a second run is fast"
    )
    parser.add_argument("--cache-gb", type=float, default=8.0, help="largest size of the cache (default: %(default)s)")
    parser.add_argument("--random-weights", action="store_true", help="let --model be a preset's name, untrained")
    parser.add_argument("--against", choices=("published",), help="datacomp38 beside the released models' results")
    parser.add_argument("--published-model", metavar="NAME", help="which one (default: the preset that --model is)")
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, help="leave larger pictures out (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="write the scores to this file too: JSON, with --root JSON lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print a table."""
    from mcliplib.evaluate import ModelEncoder, evaluate_suite
    from mcliplib.evaluate.datacomp import read_results
    from mcliplib.evaluate.suite import captions_retrieval, metrics, score_values

    for option, needed in (("cache", "root"), ("published_model", "against")):
        if getattr(args, option) is not None and getattr(args, needed) is None:
            raise UserError(f"--{option.replace('_', '-')} needs --{needed}, and changes nothing without it")
    if args.data is not None and args.root is not None:
        raise UserError("--data and --root both name what to evaluate on; drop one of them")
    args.suite = args.suite or ("mini" if args.root is None else "datacomp38")
    if args.model and args.root is None and (args.suite == "datacomp38" or args.against):
        raise UserError("--suite datacomp38 and --against need --root: the folder or URL that holds the sets")
    if args.results is not None:
        return _summary(read_results(args.results), args, "")
    if args.output is not None:
        check_replaceable(args.output)
    encoder = find_encoder(args.model, random_weights=args.random_weights)
    if args.root is not None:
        return _evaluate_root(encoder, args)
    if args.data is None:
        scores = evaluate_suite(encoder, args.suite, progress=lambda name: print(f"evaluating {name}", file=sys.stderr))
    else:
        size = encoder.model.config.image.image_size if isinstance(encoder, ModelEncoder) else 256
        images, captions = own_pictures(args.data, args.max_pixels, side=2 * size)
        found = captions_retrieval(encoder, encoder.encode_images(images), captions)
        scores = {f"{args.data}/retrieval": metrics(found)}
    print(table(scores))
    if args.output is not None:
        write_text(args.output, json.dumps(score_values(scores), indent=2) + "\n")
        print(f"written to {args.output}")
    return 0


def find_encoder(name: str, *, random_weights: bool = False) -> "Encoder":
    """The model of that name.

    Args:
        name: as `--model` takes it.
        random_weights: whether it may be a preset's name; its untrained weights are the same each time.

    Raises:
        UserError: there is no such model, or a preset's name without leave for random weights.
    """
    from mcliplib import list_models
    from mcliplib.evaluate import ModelEncoder
    from mcliplib.export.folder import CARD
    from mcliplib.search.models import RANDOM, search_model

    if name.startswith("open_clip:"):
        from mcliplib.reinforce.teachers import make_teacher

        return make_teacher(name)
    if (Path(name) / CARD).is_file():
        from mcliplib.export import load_exported

        return load_exported(name)
    if name in list_models() and not Path(name).exists():
        if not random_weights:
            raise UserError(f"{name} is a preset, without trained weights; name a checkpoint, or add --random-weights")
        name = RANDOM + name
    return ModelEncoder(search_model(name))


def _evaluate_root(encoder: "Encoder", args: argparse.Namespace) -> int:
    from mcliplib.evaluate import ModelEncoder
    from mcliplib.evaluate.datacomp import evaluate_root, published_results
    from mcliplib.evaluate.features import FeatureCache

    model = encoder.model.config.name if isinstance(encoder, ModelEncoder) else ""
    if args.against:
        published_results(args.published_model or model)  # before the hours of work, not after them
    cache = FeatureCache(args.cache, int(args.cache_gb * 1e9)) if args.cache else None
    lines: list[Line] = []
    for line in evaluate_root(
        encoder, args.root, args.suite, cache=cache, progress=lambda text: print(text, file=sys.stderr)
    ):
        lines.append(line)
        if args.output is not None:  # after each set: a long run that is stopped leaves what it has
            write_text(args.output, "".join(json.dumps(one) + "\n" for one in lines))
    return _summary(lines, args, model)


def _summary(lines: "list[Line]", args: argparse.Namespace, model: str) -> int:
    """Print the results; the exit status is 1 where a set is damaged."""
    from mcliplib.evaluate.datacomp import average, beside_published, missing

    if args.against:
        print(beside_published(lines, args.published_model or model))
    else:
        for line in lines:
            value, ends = line["metrics"]["main_metric"], line.get("interval")
            shown = f"{100 * value:5.1f}%" if value is not None else "damaged" if "fault" in line else "missing"
            span = f"  [{100 * ends[0]:5.1f}, {100 * ends[1]:5.1f}]" if ends else ""
            skipped = f"  {line['skipped']} pictures skipped" if line.get("skipped") else ""
            print(f"{line['key']:<52}{shown}{span}{skipped}")
    for line in lines:
        for note in line.get("notes", ()):
            print(f"note: {line['key']}: {note}")
    if args.suite == "datacomp38" or args.results:
        mean, absent = average(lines), missing(lines)
        if mean is None:
            print(f"no average: {len(absent)} of the 38 sets are missing ({', '.join(absent)})")
        else:
            print(f"average of the 38: {100 * mean:.2f}%")
    faults = [f"{line['key']} is damaged: {line['fault']}" for line in lines if "fault" in line]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def own_pictures(data: str, max_pixels: int, side: int) -> "tuple[list[Image.Image], list[list[str]]]":
    """A user's pictures, each with all its captions; what cannot be used is counted on stderr.

    A picture that is listed several times, as Flickr30k does it, is one picture; it is known by its bytes.

    Args:
        data: as `mcliplib reinforce --input` takes it.
        max_pixels: of a picture.
        side: pixels to which the shorter side is shrunk, for less memory.

    Raises:
        UserError: there are none.
    """
    from mcliplib.data.reader import ReadReport, Skip
    from mcliplib.reinforce.sources import find_sources, usable

    report, images, captions = ReadReport(), list[Image.Image](), dict[bytes, list[str]]()
    for source in find_sources(data, shard_size=1000):
        for raw in usable(source, report, max_skipped=1.0):
            digest = hashlib.sha256(raw.image).digest()
            if digest in captions:
                captions[digest].append(raw.caption)
                continue
            try:
                images.append(read_picture(raw.image, max_pixels=max_pixels, side=side).image)
            except PictureError as error:
                report.read -= 1
                report.skip(Skip(source.name, raw.key, error.reason), max_skipped=1.0)
            else:
                captions[digest] = [raw.caption]
    if report.skipped or report.broken_shards:
        print(report, file=sys.stderr)
    if not images:
        raise UserError(f"{data}: holds no picture with a caption that can be used")
    return images, list(captions.values())


def table(scores: "dict[str, dict[str, Score]]") -> str:
    """A line a metric: per cent, with the 95% bootstrap interval."""
    lines = []
    for task, row in scores.items():
        lines.append(task)
        for metric, value in row.items():
            interval = f"[{100 * value.low:5.1f}, {100 * value.high:5.1f}]"
            lines.append(f"  {metric:<20} {100 * value:5.1f}%  {interval}  n={value.n}")
    return "\n".join(lines)
