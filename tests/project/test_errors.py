"""Library functions raise Python's own errors, with a message for people."""

import pytest

import mcliplib
from mcliplib.reinforce.sources import find_sources
from mcliplib.train import TrainSettings, load_settings


def test_a_wrong_name_is_one_error_wherever_it_is_given():
    with pytest.raises(ValueError, match=r"unknown model 'typo'; known: .*mobileclip_s0") as by_name:
        mcliplib.create_model("typo")
    with pytest.raises(ValueError, match="unknown model 'typo'") as by_setting:
        TrainSettings(preset="typo")
    assert str(by_name.value) == str(by_setting.value)
    assert type(by_name.value) is type(by_setting.value) is mcliplib.UserError


@pytest.mark.parametrize(
    "call",
    [
        lambda path: mcliplib.load_model(path / "gone.safetensors"),
        lambda path: mcliplib.load_model(path / "gone.pt"),
        lambda path: mcliplib.data.read_shards([path / "gone.tar"]),
        lambda path: load_settings(path / "gone.yaml"),
        lambda path: find_sources(path / "gone", shard_size=1000),
    ],
    ids=["safetensors", "pt", "shard", "settings", "input"],
)
def test_a_missing_file_is_pythons_error(call, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        list(call(tmp_path))
