"""Memory on sets of real sizes: made small here, by the real commands."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mcliplab.benchmarks import memory
from mcliplib import images, results
from mcliplib.cli import main
from mcliplib.errors import UserError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PHONES", ((160, 120), (120, 160)))
    monkeypatch.setattr(memory, "_PER_SHARD", 100)


def test_photographs_are_turned_as_phones_store_them(tmp_path: Path) -> None:
    memory.make_photos(tmp_path, 4, lambda _: None)
    found = sorted(tmp_path.glob("*.jpg"))
    with Image.open(found[1]) as opened:
        assert images.orientation(opened) == 6
    assert len((tmp_path / "list.csv").read_text().splitlines()) == 5


@pytest.mark.slow
def test_a_stream_is_measured_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "folder", lambda directory=None: tmp_path)
    command = ["benchmark", "memory", "stream", "--samples", "600", "--folder", str(tmp_path), "--record", "stream"]
    assert main(command) == 0
    values = json.loads((tmp_path / "stream.json").read_text())["values"]
    assert values["samples"] == 600
    assert values["peak_mb"] >= values["late_mb"] > 50
    assert values["curve"]


def test_a_command_that_fails_is_an_error() -> None:
    with pytest.raises(UserError, match=r"ended with 2: .*no such file"):
        memory.run_command(["evaluate", "--model", "nowhere.safetensors"])


def test_a_command_that_is_ending_has_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = itertools.cycle([0, 7_000_000])
    monkeypatch.setattr(memory, "resident", lambda process: next(sizes))
    monkeypatch.setattr(memory, "_EVERY", 0.01)
    ran = memory.run_command(["--version"])
    assert {size for _, size in ran.curve} == {7.0}
    assert ran.peak_mb == 7.0


def test_reduction_compares_the_large_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.make_photos(tmp_path, 3, lambda _: None)
    monkeypatch.setattr(images, "WHOLE_PIXELS", 5000)

    class Means:
        def encode_images(self, images: list[Image.Image]) -> torch.Tensor:
            rows = [torch.tensor(image.resize((4, 4)).getdata()).float().flatten() for image in images]
            return torch.nn.functional.normalize(torch.stack(rows), dim=1)

        def encode_texts(self, texts: list[str]) -> torch.Tensor:
            raise NotImplementedError

    found = memory.measure_reduction(tmp_path, Means())
    assert len(found.cosines) == 3
    assert 0.99 < min(found.cosines) <= max(found.cosines) < 1.0001
    assert images.WHOLE_PIXELS == 5000
