"""What a stranger types first: one's own pictures, small sets, short runs."""

import dataclasses
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mcliplib
from mcliplib.cli import main
from mcliplib.data import write_shard
from mcliplib.reinforce.caption_check import CaptionCheck, check_captions
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.train.settings import TrainSettings
from mcliplib.train.trainer import train

SMALL = ["--preset", "mobileclip_pico", "--image-size", "32", "--context-length", "16", "--dtype", "float32"]


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures and a list."""
    (made := tmp_path / "mine").mkdir()
    for number in range(12):
        (made / f"{number}.png").write_bytes(picture(number))
    (made / "list.csv").write_text("image,caption\n" + "".join(f"{n}.png,number {n}\n" for n in range(12)))
    return made


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    samples = [(f"k{n}", {"png": picture(n), "txt": f"number {n}".encode()}) for n in range(12)]
    return write_shard(tmp_path / "set" / "a.tar", samples)


def test_training_on_a_folder_of_pictures_says_how_to_make_a_set(folder, tmp_path, capsys):
    for name in (folder, folder / "list.csv"):
        assert main(["train", "--data", str(name), "--output", str(tmp_path / "run"), *SMALL]) == 2
        said = capsys.readouterr().err
        assert f"mcliplib reinforce --input {name} --output SET" in said
        assert said.count("\n") == 1


def test_a_batch_larger_than_the_set(shard, tmp_path, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        run = ["train", "--data", str(shard), *SMALL, "--samples", "30"]
        assert main([*run, "--output", str(tmp_path / "a")]) == 0
    assert "batch_size 128 is more than the set's 12 pairs: it is 12 now" in caplog.text
    assert "warmup_steps 100 is not less than the run's" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["learning_rate"] >= 0
    assert max(line["learning_rate"] for line in lines) == pytest.approx(TrainSettings().learning_rate)
    bar = capsys.readouterr().err
    assert "100%" in bar
    assert main([*run, "--output", str(tmp_path / "b"), "--batch-size", "16"]) == 2
    assert "more than the 12 pairs there are (--batch-size)" in capsys.readouterr().err
    assert main([*run, "--output", str(tmp_path / "a"), "--resume", "auto"]) == 0  # with what it was begun with


def test_evaluation_of_ones_own_pictures(folder, tmp_path, capsys):
    model = mcliplib.create_model("mobileclip_pico", image_size=32)
    mcliplib.save_checkpoint(model, tmp_path / "m.safetensors")
    (folder / "list.csv").open("a").write("nowhere.png,gone\n")
    command = ["evaluate", "--model", str(tmp_path / "m.safetensors"), "--data", str(folder)]
    assert main([*command, "--output", str(tmp_path / "scores.json")]) == 0
    said = capsys.readouterr()
    assert "image_to_text_r1" in said.out
    assert "n=12" in said.out
    assert "1 skipped: missing image (first: nowhere" in said.err
    (scores,) = json.loads((tmp_path / "scores.json").read_text()).values()
    assert 0 <= scores["text_to_image_r10"]["value"] <= 1
    assert main([*command, "--max-pixels", "100"]) == 2
    assert "holds no picture" in capsys.readouterr().err


def test_trained_on_says_where_data_were_passed(tmp_path):
    from mcliplib.data import Sample

    samples = [Sample(f"{n}", Image.new("RGB", (40, 40), (n, 0, 0)), f"number {n}") for n in range(4)]
    settings = TrainSettings(preset="mobileclip_pico", samples=4, batch_size=4, image_size=32, warmup_steps=0)
    result = train(settings, tmp_path / "run", samples=samples)
    from mcliplib.checkpoints.files import read_header

    assert read_header(result.checkpoint)["trained_on"] == "data that the program passed"


def reinforced(number: int, synthetic: int) -> ReinforcedSample:
    def unit(seed: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(seed)), dim=0)

    text = torch.stack([unit(number), unit(synthetic)])
    return ReinforcedSample(f"{number}", (), ("a thing",), unit(number)[None], text, caption=f"number {number}")


def test_poor_synthetic_captions_are_called_poor():
    good = check_captions(reinforced(n, n) for n in range(50))
    assert good == CaptionCheck(50, 1.0, 1.0)
    assert "poor" not in str(good)
    poor = check_captions(reinforced(n, n + 1000) for n in range(50))
    assert poor.real == 1
    assert poor.synthetic < 0.3
    assert "train with --captions 0" in str(poor)


def test_pictures_are_kept_no_larger_than_training_needs(tmp_path):
    """Twelve megapixels take 36 MB decoded; of each, some 200 pixels a side are enough for a model of 32."""
    from mcliplib.train.data import PairData, load_data

    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((4000, 3000)).convert("RGB").save(buffer, "JPEG")
    path = write_shard(tmp_path / "a.tar", [(f"k{n}", {"jpg": buffer.getvalue(), "txt": b"grey"}) for n in range(3)])
    data = load_data(TrainSettings(data=(str(path),)), 32)
    assert isinstance(data, PairData)
    assert all(32 <= min(one.image.size) <= 128 for one in data.samples)


def test_cuda_where_there_is_none(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = ["reinforce", "--input", str(folder), "--output", str(tmp_path / "set"), "--device", "cuda"]
    assert main(command) == 2
    assert "--device cuda: PyTorch finds no GPU here" in capsys.readouterr().err


def test_settings_of_old_runs_are_still_read():
    """A run of before these flags goes on with their defaults."""
    assert dataclasses.asdict(TrainSettings())["stream"] is None
