"""A handful of pairs that a small model can learn."""

import pytest
from PIL import Image

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "purple", "orange")


@pytest.fixture(scope="module")
def samples():
    from mcliplib.data import Sample  # not above: the check of annotations must come before the package

    return [
        Sample(f"{colour}-{size}", Image.new("RGB", (size, size), colour), f"a {colour} square", {"keywords": [colour]})
        for colour in COLOURS
        for size in (40, 64)
    ]
