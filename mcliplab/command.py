"""Parts that the workshop's commands share: the number of threads, and progress on stderr."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mcliplib.errors import UserError
from mcliplib.results import check_name

Measured = TypeVar("Measured")


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


def print_progress(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def measure_and_record(
    args: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Measured],
    record: Callable[[argparse.Namespace, Measured, float], Path],
) -> int:
    """Measure, and record if `--record` wants it, under a name that is checked before time is spent.

    Args:
        args: of the command, with `record`.
        measure: prints what it found, and returns it.
        record: writes the record, with the seconds that measuring took.

    Raises:
        UserError: the name cannot be a record's.
    """
    if args.record:
        check_name(args.record)
    start = time.perf_counter()
    measured = measure(args)
    if args.record:
        print(f"recorded in {record(args, measured, time.perf_counter() - start)}")
    return 0
