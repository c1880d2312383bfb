"""How many threads PyTorch computes with."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """PyTorch computes with `count` threads inside, and with as many as before outside; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
