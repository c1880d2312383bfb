"""`mcliplib benchmark reinforce`, and what it counts: bytes, fidelity, the paper's operations."""

import json

import pytest
import torch

from mcliplab.benchmarks.operations import paper_operations
from mcliplab.benchmarks.reinforcing import about, pictures
from mcliplab.benchmarks.storage import DTYPES, example_sample, fidelity, sample_bytes, tar_bytes
from mcliplib.cli import main
from mcliplib.data import shard_paths, write_shard
from mcliplib.reinforce import from_members, to_members

QUICK = ["benchmark", "reinforce", "--data", "gcompris-animals", "--pictures", "8", "--batch", "4", "--rounds", "2"]


def test_table_and_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    assert main([*QUICK, "--captioner", "none", "--record", "rates-test"]) == 0
    assert "web_augment_224" in capsys.readouterr().out
    record = json.loads((tmp_path / "rates-test.json").read_text())
    assert set(record["unit"]) == set(record["values"])
    assert "--pictures 8" in record["command"]
    values = record["values"]
    assert {"decode", "augment_128", "web_decode", "view_tuned-lite0", "text_tuned-lite2", "write_int8"} <= set(
        values["milliseconds"]
    )
    assert all(0 < one["low"] <= one["median"] <= one["high"] for one in values["milliseconds"].values())
    assert values["fidelity"]["float32"]["change_largest"] == 0
    assert values["fidelity"]["int8"]["moved_mean"] < values["fidelity"]["teachers"]["moved_mean"]
    assert set(values["bytes"]) == {"paper_10", "paper_30", "ours"}


def test_a_missing_captioner_is_said_and_the_rest_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    assert main([*QUICK, "--captioner", "nobody", "--record", "rates-test"]) == 0
    assert "without captions: unknown captioner 'nobody'" in capsys.readouterr().err
    values = json.loads((tmp_path / "rates-test.json").read_text())["values"]
    assert "unknown captioner" in values["skipped"]["captioner"]
    assert not any(name.startswith("caption_") for name in values["milliseconds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pictures", "2", "--batch", "4"], "--pictures must be at least 4"),
        (["--rounds", "1"], "--rounds must be at least 2"),
        (["--pictures", "100000", "--rounds", "2"], "fewer than the 100000 wanted"),
        (["--record", "Bad Name"], "use lower-case letters"),
    ],
)
def test_bad_input_is_one_line_and_a_failure(arguments, message, capsys):
    assert main(["benchmark", "reinforce", "--data", "gcompris-animals", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_pictures_are_spread_over_the_data():
    chosen = pictures(shard_paths("gcompris-animals"), 8)
    assert len({one.key for one in chosen}) == 8
    sizes = about(chosen)
    assert 512 * 100 < sizes["web"]["pixels"] <= 512 * 512


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_those_of_a_real_shard(dtype, tmp_path):
    sample = example_sample(3, 2, (8, 8))
    members = to_members(sample, dtype, teacher_dims=(8, 8))
    assert from_members(sample.key, members, teacher_dims=(8, 8)).augmentations == sample.augmentations
    one, two = ([(f"{place:032}", members) for place in range(count)] for count in (20, 60))
    sizes = [write_shard(tmp_path / f"{len(rows)}.tar", rows).stat().st_size for rows in (one, two)]
    assert sizes[1] - sizes[0] == pytest.approx(40 * tar_bytes(members), abs=10_240)  # a tar ends in whole records
    assert sample_bytes(3, 2, dtype, (8, 8)) == tar_bytes(members)


def test_fidelity_knows_what_it_compares():
    generator = torch.Generator().manual_seed(0)
    views, captions = (torch.randn(rows, 16, generator=generator) for rows in (6, 4))
    halves = [torch.nn.functional.normalize(rows.view(-1, 2, 8), dim=-1).flatten(1) for rows in (views, captions)]
    found = fidelity(*halves, (8, 8))
    assert found["float32"] == (0, 0, 0, 0)
    assert 0 < found["bfloat16"].cosine_largest < 0.02
    cosines = [view @ caption.T for view, caption in zip(*(rows.split(8, dim=1) for rows in halves), strict=True)]
    first, second = ((100 * one).softmax(dim=-1) for one in cosines)
    assert found["teachers"].moved_mean == pytest.approx(float((first - second).abs().sum(dim=1).mean() / 2))
    alike = torch.cat([halves[0][:, :8]] * 2, dim=1), torch.cat([halves[1][:, :8]] * 2, dim=1)
    assert fidelity(*alike, (8, 8))["teachers"].change_largest == 0


def test_the_papers_operations():
    """ViT-L-14 at 224 pixels: 257 tokens, 24 layers of width 1024; matrix products alone."""
    counted = paper_operations()
    tokens, width, layers = 257, 1024, 24
    linear = layers * 2 * tokens * 12 * width**2
    attention = layers * 2 * 2 * tokens**2 * width
    assert counted.view == pytest.approx(linear + attention, rel=0.01)
    text = 12 * (2 * 77 * 12 * 768**2 + 2 * 2 * 77**2 * 768)
    assert counted.text == pytest.approx(text, rel=0.01)
    assert counted.picture == pytest.approx(counted.view, rel=0.05)
    assert counted.caption_cached < counted.caption / 8
