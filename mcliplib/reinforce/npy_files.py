"""Many small numpy arrays of few shapes: the header, a Python expression, is parsed once for each that is met."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PREFIX = 10  # bytes: magic, version 1.0, length of the header


def load_npy(content: bytes) -> NDArray[Any]:
    """The array of a `.npy` file; never unpickles.

    Raises:
        ValueError: not such a file, one cut short, or one of objects.
    """
    if content[:8] != b"\x93NUMPY\x01\x00":  # other versions are for headers that ours never need
        return np.load(io.BytesIO(content), allow_pickle=False)
    start = _PREFIX + int.from_bytes(content[8:_PREFIX], "little")
    dtype, shape, fortran_order = _header(content[:start])
    if dtype.hasobject:
        raise ValueError("holds objects, which only pickle can read")
    if len(content) != start + dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ValueError("is longer or shorter than its header says")
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran_order else "C")


@lru_cache(maxsize=256)
def _header(start: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    stream = io.BytesIO(start)
    np.lib.format.read_magic(stream)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    return dtype, shape, fortran_order
