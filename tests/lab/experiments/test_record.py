"""A finished run as a record: its curve, its scores, and the command that gives it again."""

import json
import shlex
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcliplab.experiments import record as module
from mcliplab.experiments.record import curve
from mcliplib.cli import main
from mcliplib.evaluate import evaluate_suite


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300), st.integers(1, 80))
def test_a_curve_keeps_the_end_and_the_range(losses, points):
    lines = [{"step": step * 10, "loss": loss} for step, loss in enumerate(losses)]
    found = curve(lines, batch_size=4, points=points)
    assert len(found["samples"]) == len(found["loss"]) <= points
    assert found["samples"] == sorted({*found["samples"]})
    assert found["samples"][-1] == (10 * (len(losses) - 1) + 1) * 4
    assert min(losses) - 1e-4 <= min(found["loss"]) <= max(found["loss"]) <= max(losses) + 1e-4


def test_each_point_is_the_mean_since_the_one_before():
    lines = [{"step": step, "loss": float(step)} for step in range(5)]
    assert curve(lines, batch_size=2, points=2) == {"samples": [6, 10], "loss": [1.0, 3.5]}


def test_a_run_is_recorded_with_the_command_that_repeats_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(module, "evaluate_suite", partial(evaluate_suite, suite="gcompris-animals"))
    flags = (
        "--preset mobileclip_pico --data gcompris-animals --samples 24 --batch-size 8 --image-size 32 --log-every 1 "
        "--dtype float32 --record visit"
    )
    assert main(["train", "--output", str(tmp_path / "run"), *flags.split()]) == 0
    found = json.loads((tmp_path / "results/visit.json").read_text())
    values = found["values"]
    assert values["samples"] == 24
    assert values["curve"]["samples"] == [8, 16, 24]
    assert values["curve"]["loss"][-1] == pytest.approx(values["loss"], abs=1e-4)
    assert values["computed_in"] == "float32"
    assert 0 <= values["scores"]["gcompris-animals/animals"]["top1"]["value"] <= 1
    command = shlex.split(found["command"])
    assert command[:4] == ["mcliplib", "train", "--output", "runs/visit"]
    given_flags = dict(zip(flags.split()[::2], flags.split()[1::2], strict=True))
    said = dict(zip(command[2::2], command[3::2], strict=True))
    assert {name: said[name] for name in given_flags} == given_flags
