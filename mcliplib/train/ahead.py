"""Batches made ahead of the step, by threads, so that a GPU need not wait for pictures."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from mcliplib.threads import usable_cores

T = TypeVar("T")
_MOST = 6


def threads_for(device: torch.device) -> int:
    """How many threads should make batches for what computes on `device`.

    None beside a CPU, whose cores they would take from the towers; for a GPU up to six, as far as this process's share
    of the machine's cores allows (`torchrun` tells how many processes share them).
    """
    if device.type == "cpu":
        return 0
    return max(1, min(_MOST, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def made_ahead(make: Callable[[int], T], steps: Iterable[int], threads: int) -> Generator[tuple[int, T]]:
    """Each step and what `make` gives for it, in order.

    Args:
        make: a function of the step alone, that several threads may call at once.
        steps: the steps' numbers.
        threads: as many batches are made beside the caller's work, each in a thread; with 0 the caller waits for each.

    Raises:
        Exception: what `make` raises, when its step's turn has come.
    """
    if threads == 0:
        yield from ((step, make(step)) for step in steps)
        return
    numbers = iter(steps)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting = deque((step, pool.submit(make, step)) for step in islice(numbers, threads))
        while waiting:
            step, batch = waiting.popleft()
            made = batch.result()
            waiting.extend((following, pool.submit(make, following)) for following in islice(numbers, 1))
            yield step, made
