"""The `mcliplib` command. Each command is a module beside this one with a `register(commands)` function."""

import argparse
import sys
from collections.abc import Sequence

from mcliplib.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, for `main` and for the tests that read every `--help`."""
    from mcliplib.cli import data, doctor, evaluate, train

    parser = argparse.ArgumentParser(prog="mcliplib", description="MobileCLIP: learn it, run it, extend it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (doctor, data, train, evaluate):
        module.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad input prints one line on stderr and returns 2."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except UserError as error:
        print(f"mcliplib {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mcliplib {args.command}: interrupted", file=sys.stderr)
        return 130
