"""Randomness that belongs to a sample: the same on every machine, in every process and in every order of samples."""

import hashlib

from torch import Generator


def generator_of(purpose: str, seed: int, key: str) -> Generator:
    """A generator on the CPU for one use of one sample.

    Args:
        purpose: what is drawn; two purposes do not share their draws.
        seed: of the run.
        key: the sample's.
    """
    digest = hashlib.sha256(f"{purpose}/{seed}/{key}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
