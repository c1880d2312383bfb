"""The comparison of starts for fine-tuning: every method from every start, scored on pictures it did not learn from."""

import shutil

import pytest

from mcliplab.experiments import finetuning
from mcliplib import results
from mcliplib.cli import main
from mcliplib.data import load_labelled, load_samples
from mcliplib.hub import locate

WAYS = ["shots_1", "shots_4", "shots_16", "probe", "full", "lp-ft"]


@pytest.mark.slow
def test_every_method_is_measured_from_every_start(tmp_path, monkeypatch, capsys):
    for start in ("plain", "reinforced"):
        shutil.copy(locate("student"), tmp_path / f"{start}-500-3.safetensors")
    few = load_labelled("art4apps", "category").split(0.3, 0)[1]
    learned, tested = few.split(finetuning.TEST, 3)
    assert {one.tobytes() for one in learned.images}.isdisjoint({one.tobytes() for one in tested.images})
    monkeypatch.setattr(finetuning, "load_labelled", lambda *_: few)
    monkeypatch.setattr(finetuning, "load_samples", lambda name: load_samples(name)[:60])
    monkeypatch.setattr(finetuning, "SHARES", (0.0, 1.0))
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr("mcliplab.experiments.finetuning.SHARES", (0.0, 1.0))
    command = ["experiment", "finetune", "--runs", str(tmp_path), "--samples", "500", "--seeds", "3", "--record", "ft"]
    assert main(command) == 0
    values = results.load("ft")["values"]
    assert {start: list(by_seed) for start, by_seed in values.items()} == {"plain": ["3"], "reinforced": ["3"]}
    assert list(values["plain"]["3"]) == WAYS
    assert values["plain"] == values["reinforced"], "the same student"
    found = values["plain"]["3"]["full"]
    assert found["0.0"]["kept"]["value"] > found["1.0"]["kept"]["value"], "it forgets"
    assert found["1.0"]["task"]["n"] == len(tested.images)
    assert "full, 1.0, task" in capsys.readouterr().out
