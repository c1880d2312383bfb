"""`mcliplib compact`."""

import argparse
from pathlib import Path
from typing import Any, get_args

from mcliplib.reinforce.sample import EmbeddingDType


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("compact", help="write a small form of a reinforced set")
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="DIR", help="a finished reinforced set")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the small form")
    add("--dims", type=int, default=96, help="of each teacher's embedding (default: %(default)s)")
    add("--views", type=int, metavar="N", help="the first N augmentations of each image (default: all)")
    add("--dtype", choices=get_args(EmbeddingDType), default="int4", help="of the embeddings (default: %(default)s)")
    add("--images", nargs="+", metavar="SET", help="data sets or shards that hold the images; else they are copied")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the small form, and say what is left."""
    from mcliplab.datasets.compact import compact

    made = compact(args.input, args.output, dims=args.dims, views=args.views, dtype=args.dtype, images=args.images)
    kept = ", ".join(f"{share:.1%}" for share in made.kept)
    print(f"{args.output}: {made.samples:,} samples, {made.bytes / 1e6:.1f} MB; kept of each teacher: {kept}")
    return 0
