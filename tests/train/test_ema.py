"""The moving average of the weights: its arithmetic, and a run that keeps one."""

import pytest
import torch
from torch import nn

import mcliplib
from mcliplib.train import TrainSettings, train
from mcliplib.train.trainer import average_of, update_

SETTINGS = TrainSettings(
    preset="mobileclip_pico", samples=64, batch_size=8, image_size=32, context_length=8, warmup_steps=2, ema=0.9,
    save_every=3, learning_rate=3e-3,
)  # fmt: skip


def test_the_average_by_hand():
    model = nn.BatchNorm1d(1)
    average = average_of(model)
    with torch.no_grad():
        model.weight.fill_(3.0)  # was 1
        model.running_mean.fill_(10.0)  # was 0
        model.num_batches_tracked.fill_(7)
    update_(average, model, decay=0.5, step=100)
    assert average.weight.item() == 2.0
    assert average.running_mean.item() == 5.0
    assert average.num_batches_tracked.item() == 7
    assert model.weight.item() == 3.0
    update_(average, model, decay=0.999, step=0)  # the first step's decay is 1 / 10
    assert average.weight.item() == pytest.approx(0.1 * 2 + 0.9 * 3)


def test_an_average_has_no_gradient_and_evaluates():
    average = average_of(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train())
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())


def test_the_average_is_what_a_run_leaves(samples, tmp_path):
    result = train(SETTINGS, tmp_path, samples=samples)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    saved = mcliplib.load_model(tmp_path / "model.safetensors").state_dict()
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, state["average"][name])
        assert torch.equal(value, saved[name])
    assert not torch.equal(state["average"]["logit_scale"], state["model"]["logit_scale"])


def test_averaging_does_not_disturb_training(samples, tmp_path):
    train(SETTINGS, tmp_path / "with", samples=samples)
    train(TrainSettings(**{**vars(SETTINGS), "ema": None}), tmp_path / "without", samples=samples)
    a, b = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("with", "without"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_a_decay_must_decay(value):
    with pytest.raises(mcliplib.UserError, match=r"ema must be in \(0, 1\)"):
        TrainSettings(ema=value)
