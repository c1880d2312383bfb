"""Weights at a byte each."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcliplib.checkpoints.int8 import from_int8, to_int8


@given(
    st.lists(st.integers(1, 5), min_size=0, max_size=4),
    st.floats(1e-3, 1e3),
    st.integers(0, 9),
)
def test_within_half_a_step(shape, size, seed):
    value = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    stored = to_int8({"layer.weight": value})
    back = from_int8(stored)
    assert list(back) == ["layer.weight"]
    assert back["layer.weight"].shape == value.shape
    largest = value.abs().flatten(1).amax(1).view(-1, *[1] * (value.dim() - 1)) if value.dim() > 1 else value.abs()
    allowed = 0.51 / 127 * largest if value.dim() > 1 else 2**-11 * largest + 1e-7
    assert ((back["layer.weight"] - value).abs() <= allowed).all()


def test_what_is_read_is_written_again_unchanged():
    once = from_int8(to_int8({"weight": torch.randn(6, 5), "bias": torch.randn(6), "empty": torch.zeros(3, 2)}))
    twice = from_int8(to_int8(once))
    for name, value in once.items():
        assert torch.equal(value, twice[name])


def test_a_missing_step_is_told():
    stored = to_int8({"weight": torch.randn(6, 5)})
    del stored["weight.step"]
    with pytest.raises(ValueError, match="weight is int8 and has no step"):
        from_int8(stored)
