"""The preprocessing where people use it: in a DataLoader's workers, on paths, and on what it cannot read."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import mcliplib
from tests.conftest import refused


class Pictures(Dataset):
    """Paths to pixels, as in a user's own loader."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths, self.preprocess = paths, mcliplib.get_preprocess("mobileclip_nano")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.preprocess(self.paths[index])


@pytest.fixture
def paths(colourful, tmp_path):
    found = [tmp_path / f"{number}.png" for number in range(3)]
    for path in found:
        colourful.save(path)
    return found


def test_workers_that_are_spawned(paths, colourful):
    """As on macOS, on Windows, and by default from Python 3.14 on."""
    loader = DataLoader(Pictures(paths), batch_size=3, num_workers=1, multiprocessing_context="spawn")
    (pixels,) = loader
    assert torch.equal(pixels, mcliplib.get_preprocess("mobileclip_nano")(colourful).expand(3, -1, -1, -1))


@pytest.mark.parametrize("name", mcliplib.list_models())
def test_it_survives_pickling(name, colourful):
    preprocess = mcliplib.get_preprocess(name)
    again = pickle.loads(pickle.dumps(preprocess))
    assert again == preprocess
    assert torch.equal(again(colourful), preprocess(colourful))


def test_a_path_is_opened(paths, colourful):
    preprocess = mcliplib.get_preprocess("mobileclip_nano")
    for path in (paths[0], str(paths[0])):
        assert torch.equal(preprocess(path), preprocess(colourful))


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8), None, b"bytes"])
def test_what_is_no_picture_is_refused_with_the_cure(image):
    with refused(TypeError, "image must be a PIL image or a path, got .*fromarray.*to_pil_image"):
        mcliplib.get_preprocess("mobileclip_nano")(image)
