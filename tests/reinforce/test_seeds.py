"""Randomness that belongs to a sample."""

import torch

from mcliplib.reinforce.store import generator_of


def _draw(purpose: str, seed: int, key: str) -> tuple[int, ...]:
    return tuple(torch.randint(1 << 30, (2,), generator=generator_of(purpose, seed, key)).tolist())


def test_purpose_seed_and_key_decide_the_draws():
    assert _draw("views", 0, "a") == _draw("views", 0, "a")
    assert len({_draw("views", 0, "a"), _draw("captions", 0, "a"), _draw("views", 1, "a"), _draw("views", 0, "b")}) == 4


def test_the_draws_are_the_same_on_every_machine():
    assert generator_of("views", 0, "a").initial_seed() == 0x43374BD0C8879A63
