"""Arrays are read as numpy reads them, or refused."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mcliplib.reinforce.archives import load_npy


def saved(array, **options):
    np.save(buffer := io.BytesIO(), array, **options)
    return buffer.getvalue()


@given(npst.arrays(st.sampled_from(["<f4", ">f8", "i1", "u1", "<f2", "bool"]), npst.array_shapes(max_side=4)))
def test_as_numpy(array):
    found = load_npy(saved(array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_orders_versions_and_nothing():
    array = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(load_npy(saved(np.asfortranarray(array))), array)
    np.testing.assert_array_equal(load_npy(saved(np.zeros((0, 3)))), np.zeros((0, 3)))
    np.lib.format.write_array(buffer := io.BytesIO(), array, version=(3, 0))
    np.testing.assert_array_equal(load_npy(buffer.getvalue()), array)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        saved(np.arange(5.0))[:-1],
        saved(np.arange(5.0)) + b"\x00",
        saved(np.array([{}], dtype=object), allow_pickle=True),
    ],
)
def test_damage_and_pickles_are_refused(content):
    with pytest.raises((ValueError, EOFError)):
        load_npy(content)
