"""The steps of quantizing, measured on one small set."""

import json

import numpy as np
import pytest
import torch

from mcliplab.benchmarks import int8
from mcliplib import create_model, reparameterize
from mcliplib.cli import main
from mcliplib.errors import UserError
from mcliplib.evaluate import score
from mcliplib.quantize.equalize import pairs
from mcliplib.quantize.static import Quantizer


def test_the_change_is_paired_and_its_interval_right():
    hits = torch.rand(400, generator=torch.Generator().manual_seed(0)) < 0.5
    worse = hits.clone()
    worse[hits.nonzero()[:20, 0]] = False
    same = int8.mean_change({"a": {"top1": score(hits)}}, {"a": {"top1": score(hits)}})
    assert (same["value"], same["low"], same["high"], same["tasks"]) == (0, 0, 0, 1)
    found = int8.mean_change({"a": {"top1": score(worse)}}, {"a": {"top1": score(hits)}})
    assert found["value"] == pytest.approx(-20 / 400)
    assert -0.08 < found["low"] < -0.05 < found["high"] < -0.025  # 1.96 deviations of sqrt(0.05 * 0.95 / 400)


def test_tasks_and_metrics_weigh_the_same():
    all_right, all_wrong = (score(torch.full((10,), value)) for value in (True, False))
    right = {"a": {"top1": all_right}, "b": {"image_to_text_r1": all_right, "text_to_image_r1": all_right}}
    wrong = {"a": {"top1": all_right}, "b": {"image_to_text_r1": all_wrong, "text_to_image_r1": all_right}}
    assert int8.mean_change(wrong, right)["value"] == pytest.approx(-0.25)


@pytest.mark.slow
@pytest.mark.parametrize("trained", [True, False])
def test_the_command(tmp_path, monkeypatch, trained):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    monkeypatch.setattr("mcliplib.evaluate.suite.list_datasets", lambda _: ["gcompris-activities"])
    model = ["--model", "student"] if trained else ["--model", "mobileclip_pico", "--random-weights"]
    if not trained:  # whose layers' errors say nothing, and measuring them takes longest
        monkeypatch.setattr(Quantizer, "sensitivities", lambda self, nodes, progress: dict.fromkeys(nodes, 1.0))
    assert main(["benchmark", "int8", *model, "--pictures", "16", "--record", "int8-test"]) == 0
    values = json.loads((tmp_path / "int8-test.json").read_text())["values"]
    assert set(values) == {"float", "steps", "spread"} | ({"drawn"} if trained else set())
    assert list(values["steps"]) == ["per_tensor", "per_channel", "equalized", "recipe"]
    for step in (*values["steps"].values(), *values.get("drawn", {}).values()):
        assert step["bytes"] < 0.5 * values["float"]["bytes"]
        assert step["int8_layers"] > 0
        assert ("change" in step) == ("scores" in step) == trained
    worst, best = (values["steps"][name]["cosine"]["mean"] for name in ("per_tensor", "recipe"))
    assert worst < best < 1
    if trained:
        drawn = {name: step["cosine"]["mean"] for name, step in values["drawn"].items()}
        assert drawn["per_tensor"] < drawn["per_channel"] < drawn["equalized"]
        assert drawn["per_tensor"] < worst - 0.02
    assert set(values["spread"]["folded"]) == {"depthwise", "pointwise", "other"}
    assert min(values["spread"]["folded"]["depthwise"]) >= 1


def test_factors_change_the_ranges_and_not_the_function():
    tower = reparameterize(create_model(pretrained="student").image_encoder)
    drawn = int8.with_factors(tower, octaves=6.0)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.nn.functional.cosine_similarity(drawn(pixels), tower(pixels)).min() > 0.9999
    ranges = [
        torch.stack([layer.weight.abs().flatten(1).amax(dim=1).log2().std() for layer, _ in pairs(one)])
        for one in (tower, drawn)
    ]
    assert (ranges[1] > 2 * ranges[0]).sum() >= 10


def test_nncf_is_asked_for_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install nncf"):
        int8.measure(
            create_model(pretrained="student"),
            np.zeros((1, 3, 64, 64), np.float32),
            scored=True,
            nncf=True,
            progress=print,
        )
