"""`mcliplib data build`: all data sets again, from their pinned source packages."""

import argparse
from pathlib import Path
from typing import Any

from mcliplib.data import registry


def register(actions: Any) -> None:
    """Add `build` to the actions of `mcliplib data`."""
    build = actions.add_parser("build", help="rebuild all data sets from their pinned source packages")
    build.add_argument(
        "--sources",
        type=Path,
        nargs="+",
        default=(),
        metavar="DIR",
        help="folders with the packages, already downloaded",
    )
    build.add_argument("--output", type=Path, metavar="DIR", help="data folder to write (default: the repository's)")
    build.set_defaults(run=run_build)


def run_build(args: argparse.Namespace) -> None:
    """Rebuild the data folder."""
    from mcliplab.datasets import build

    build(args.output or registry.data_root(), sources=args.sources, progress=lambda line: print(line, flush=True))
