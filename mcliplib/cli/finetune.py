"""`mcliplib finetune`."""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcliplib.cli.evaluate import MODEL
from mcliplib.cli.train import add_settings, given_settings
from mcliplib.errors import UserError
from mcliplib.files import write_text
from mcliplib.images import MAX_PIXELS

SHARES = tuple(step / 10 for step in range(11))
CURVE_FILE = "wise_ft.json"
_NAMED = 5  # of the classes that differ


def register(commands: Any) -> None:
    """Add the command; every field of FinetuneSettings is a flag."""
    from mcliplib.train.finetune import FinetuneSettings

    parser = commands.add_parser("finetune", help="teach a model's image tower to tell your classes apart")
    parser.add_argument("--model", default="student", help=f"{MODEL} (default: %(default)s)")
    parser.add_argument(
        "--data", required=True, help="a folder with a folder of pictures for each class, a data set, or shards"
    )
    parser.add_argument("--label", help="of a data set or shards: the member of each sample that names its class")
    parser.add_argument("--test", help="pictures to score (default: a fifth of --data, kept out of training)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint, the head and the scores")
    parser.add_argument("--drawings", action="store_true", help="the class prompts say drawing, not photo")
    parser.add_argument("--resume", choices=["auto"], help="continue the run in --output where there is one")
    group = parser.add_argument_group("settings")
    add_settings(group, FinetuneSettings)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fine-tune, and score every mixture of before and after."""
    from mcliplib.checkpoints import load_model
    from mcliplib.data.labelled import load_labelled
    from mcliplib.evaluate.scores import DRAWING_TEMPLATES, PHOTO_TEMPLATES
    from mcliplib.train.distributed import device
    from mcliplib.train.finetune import FinetuneSettings, finetune, wise_ft

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = FinetuneSettings(**given_settings(args, FinetuneSettings))
    model = load_model(args.model).to(device())
    side = 2 * model.config.image.image_size
    data = load_labelled(args.data, args.label, max_pixels=MAX_PIXELS, side=side)
    if args.test is None:
        data, test = data.split(0.2, settings.seed)
    else:
        test = load_labelled(args.test, args.label, max_pixels=MAX_PIXELS, side=side)
        if test.classes != data.classes:
            more, less = _first_only(test.classes, data.classes), _first_only(data.classes, test.classes)
            raise UserError(f"{args.test}: has other classes than {args.data}; it lacks: {less}; only it has: {more}")
    templates = DRAWING_TEMPLATES if args.drawings else PHOTO_TEMPLATES
    result = finetune(model, data, args.output, settings, templates=templates, resume=args.resume == "auto")
    curve = wise_ft(result, model, test, SHARES)
    write_text(args.output / CURVE_FILE, json.dumps({str(share): one.record() for share, one in curve.items()}) + "\n")
    print(f"share of the fine-tuned weights, accuracy on {len(test.images)} other pictures, 95% interval")
    for share, one in curve.items():
        print(f"  {share:.1f}  {100 * one:5.1f}%  [{100 * one.low:5.1f}, {100 * one.high:5.1f}]")
    print(f"written to {args.output}")
    return 0


def _first_only(one: Sequence[str], other: Sequence[str]) -> str:
    """The first names that only the first list has, for a message."""
    names = [name for name in one if name not in other]
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "") or "none"
