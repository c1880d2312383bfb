"""Batches made ahead of the step, by threads, so that a GPU need not wait for pictures."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def made_ahead(make: Callable[[int], T], steps: Iterable[int], threads: int) -> Iterator[tuple[int, T]]:
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
    pool = ThreadPoolExecutor(threads)
    try:
        waiting = deque((step, pool.submit(make, step)) for step in islice(numbers, threads))
        while waiting:
            step, batch = waiting.popleft()
            made = batch.result()
            waiting.extend((following, pool.submit(make, following)) for following in islice(numbers, 1))
            yield step, made
    finally:
        pool.shutdown(cancel_futures=True)
