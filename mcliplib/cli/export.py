"""`mcliplib export`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from mcliplib.cli.evaluate import MODEL, find_encoder
from mcliplib.errors import UserError


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("export", help="a model for other runtimes, verified")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--random-weights", action="store_true", help="let --model be a preset's name, untrained")
    parser.add_argument(
        "--format", default="onnx", help="onnx, openvino, executorch, litert or coreml (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", default="float32", help="float32, float16, bfloat16 or int8 (default: %(default)s)"
    )
    parser.add_argument("--tower", choices=("image", "text", "both"), default="both", help="default: %(default)s")
    parser.add_argument(
        "--preprocessing", action="store_true", help="put resizing and cropping into the image graph (onnx)"
    )
    parser.add_argument(
        "--calibrate", metavar="FOLDER", help="for int8: pictures like those it is for, or a shipped set's name"
    )
    parser.add_argument(
        "--per-tensor", action="store_true", help="for int8: a step for each tensor instead of each channel, to compare"
    )
    parser.add_argument("--force", action="store_true", help="write int8 even if it often disagrees with float")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, and print what was written and how well it was verified."""
    from mcliplib.evaluate import ModelEncoder
    from mcliplib.export import export
    from mcliplib.export.folder import readme

    encoder = (
        None if args.model.startswith("open_clip:") else find_encoder(args.model, random_weights=args.random_weights)
    )
    if not isinstance(encoder, ModelEncoder):
        raise UserError(f"{args.model}: only MobileCLIP models are exported; name a checkpoint")
    card = export(
        encoder.model,
        args.output,
        args.format,
        args.tower,
        args.precision,
        args.calibrate,
        preprocessing=args.preprocessing,
        per_channel=not args.per_tensor,
        force=args.force,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(readme(card), end="")
    print(f"written to {args.output}")
    return 0
