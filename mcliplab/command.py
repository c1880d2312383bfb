"""Parts that the workshop's commands share: the number of threads, and progress on stderr."""

import argparse
import sys

from mcliplib.errors import UserError


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add `--threads`."""
    # not taken from the machine: the last bits of sums depend on it, and on busy cores two are slower than one
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")


def use_threads(number: int) -> None:
    """Let PyTorch compute with this number of threads.

    Raises:
        UserError: fewer than one.
    """
    import torch

    if number < 1:
        raise UserError(f"--threads must be at least 1, got {number}")
    torch.set_num_threads(number)


def say_on_stderr(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)
