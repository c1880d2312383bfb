"""The `mcliplib` command.

Each command is a module with a `register(commands)` function: beside this one, or in the workshop, `mcliplab`, which
only a checkout of the repository has.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from mcliplib.cli.common import register
from mcliplib.errors import UserError

COMMANDS = {
    "doctor": "mcliplib.doctor",
    "data": "mcliplib.cli.data",
    "teachers": "mcliplab.teachers.cli",
    "captioner": "mcliplab.captioner.cli",
    "reinforce": "mcliplib.cli.reinforce",
    "compact": "mcliplab.datasets.cli_compact",
    "train": "mcliplib.cli.train",
    "experiment": "mcliplab.experiments.cli",
    "evaluate": "mcliplib.cli.evaluate",
    "benchmark": "mcliplib.cli.benchmark",
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line, or just the one command that is wanted.

    Registering a command imports what it needs: `mcliplib doctor` must start where the rest does not import.
    """
    parser = argparse.ArgumentParser(prog="mcliplib", description="MobileCLIP: learn it, run it, extend it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        if only in (None, name):
            register(commands, name, module)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad input prints one line on stderr and returns 2."""
    argv = sys.argv[1:] if argv is None else argv
    only = argv[0] if argv and argv[0] in COMMANDS else None
    try:
        args = build_parser(only).parse_args(argv)
        status = int(args.run(args) or 0)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"{_name(only)}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{_name(only)}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read our output wants no more of it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor what is still to be flushed
        return 141


def _name(command: str | None) -> str:
    return f"mcliplib {command}" if command else "mcliplib"
