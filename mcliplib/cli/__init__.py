"""The `mcliplib` command.

Each command is a module with a `register(commands)` function: beside this one, or in the workshop, `mcliplab`, which
only a checkout of the repository has.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from mcliplib import __version__
from mcliplib._torchvision_compat import ensure_torchvision
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
    "finetune": "mcliplib.cli.finetune",
    "experiment": "mcliplab.experiments.cli",
    "evaluate": "mcliplib.cli.evaluate",
    "search": "mcliplib.cli.search",
    "export": "mcliplib.cli.export",
    "benchmark": "mcliplib.cli.benchmark",
}
_WORDS: dict[int, tuple[str, int]] = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line, or just the one command that is wanted.

    Registering a command imports what it needs: `mcliplib doctor` must start where the rest does not import.
    """
    parser = argparse.ArgumentParser(prog="mcliplib", description="MobileCLIP: learn it, run it, extend it.")
    parser.add_argument("--version", action="version", version=f"mcliplib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        if only in (None, name):
            register(commands, name, module)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad input prints one line on stderr and returns 2, Ctrl-C 130, SIGTERM 143."""
    alone = argv is None  # a program of its own, of which nothing has begun yet
    argv = sys.argv[1:] if argv is None else argv
    only = argv[0] if argv and argv[0] in COMMANDS else None
    stopped: list[int] = []
    try:
        with _stopping(stopped, only, at_once=alone):
            with contextlib.suppress(UserError):
                ensure_torchvision()
            args = build_parser(only).parse_args(argv)
        with _stopping(stopped, only, at_once=False):
            status = int(args.run(args) or 0)
            sys.stdout.flush()
            return status
    except BrokenPipeError:  # who read our output wants no more of it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor what is still to be flushed
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if stopped or isinstance(error, KeyboardInterrupt):  # an import that is interrupted may end in any error
            word, status = _WORDS[stopped[0] if stopped else signal.SIGINT]
            print(f"{_name(only)}: {word}", file=sys.stderr)
            return status
        if isinstance(error, UserError):
            print(f"{_name(only)}: {error}", file=sys.stderr)
            return 2
        raise


@contextlib.contextmanager
def _stopping(stopped: list[int], command: str | None, *, at_once: bool) -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does; a second signal works as ever. The signals that come are put into the list.

    While torch is imported there is nothing to clean up, and an error in the midst of it prints a hundred lines: the
    program then ends at once.
    """

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        if at_once:
            word, status = _WORDS[number]
            os.write(2, f"{_name(command)}: {word}\n".encode())
            os._exit(status)
        signal.signal(number, usual[number])
        raise KeyboardInterrupt

    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = [number for number, handler in usual.items() if signal.getsignal(number) == handler]  # nohup ignores some
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual[number])


def _name(command: str | None) -> str:
    return f"mcliplib {command}" if command else "mcliplib"
