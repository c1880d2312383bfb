"""How many threads there may be, and how many PyTorch computes with."""

import contextlib
import os
from collections.abc import Iterator

import torch


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """PyTorch computes with `count` threads inside, and with as many as before outside; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
