"""A batch encoded in parts has the gradients of the whole."""

import copy
import math

import pytest
import torch
from torch import nn

import mcliplib
from mcliplib.losses import clip_loss
from mcliplib.train import TrainSettings, train
from mcliplib.train.distributed import part_of
from mcliplib.train.metrics import read_metrics
from mcliplib.train.step import backward_in_parts
from tests.train.distributed_worker import ROWS, Towers, inputs, loss_of


@pytest.mark.parametrize("kind", ["clip", "reinforced"])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_gradients_of_parts_are_those_of_the_whole(kind, parts):
    """Uneven parts too; with BatchNorm as it is in evaluation."""
    rows, teachers = inputs()

    def found(parts):
        model, encoded = Towers(), []

        def encode(part):
            encoded.append(part)
            return model(*(tensor[part_of(ROWS, part, parts)] for tensor in rows))[:3]

        def loss_of_all(features):
            return loss_of(kind, features, model.scale, teachers)

        if parts is None:
            loss = loss_of_all(model(*rows)[:3])
            loss.backward()
        else:
            loss = backward_in_parts(model, encode, parts, loss_of_all)
            assert not loss.requires_grad
        return encoded, [loss.detach(), *(p.grad for p in model.parameters())]

    encoded, gradients = found(parts)
    assert encoded == 2 * list(range(parts))
    torch.testing.assert_close(gradients, found(None)[1], rtol=1e-10, atol=1e-12)


def test_the_whole_model_in_parts():
    """The real towers, BatchNorm fixed, float64: the whole batch at once against three parts."""
    torch.manual_seed(0)
    model = mcliplib.create_model("mobileclip_pico", image_size=32, context_length=8).double().eval()
    pixels, tokens = torch.rand(7, 3, 32, 32, dtype=torch.float64), torch.randint(1, 49000, (7, 8))
    tokens[:, -1] = 49407

    def gradients(parts):
        model.zero_grad()

        def encode(part):
            which = part_of(7, part, parts)
            return model(pixels[which], tokens[which])[:2]

        backward_in_parts(model, encode, parts, lambda features: clip_loss(*features, model.scale))
        return [p.grad.clone() for p in model.parameters()]

    torch.testing.assert_close(gradients(3), gradients(1), rtol=1e-8, atol=1e-10)


def test_ordinary_accumulation_would_not_do():
    """The mean of the parts' own losses has other gradients: this is why the features are cached."""
    rows, teachers = inputs()
    model = Towers()
    halves = [model(*(tensor[part_of(ROWS, part, 2)] for tensor in rows))[:3] for part in range(2)]
    own = sum(loss_of("clip", half, model.scale, teachers) for half in halves) / 2
    whole = loss_of("clip", model(*rows)[:3], model.scale, teachers)
    one, other = (torch.autograd.grad(loss, model.image[0].weight)[0] for loss in (own, whole))
    assert (one - other).norm() > 0.1 * other.norm()


def test_running_statistics_move_once_for_each_part():
    norm = nn.BatchNorm1d(3)
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    expected = copy.deepcopy(norm)
    for half in rows.split(4):
        expected(half)
    backward_in_parts(
        norm, lambda part: [norm(rows[part_of(8, part, 2)])], 2, lambda features: features[0].square().mean()
    )
    assert norm.num_batches_tracked == 2
    torch.testing.assert_close(norm.running_mean, expected.running_mean)
    torch.testing.assert_close(norm.running_var, expected.running_var)
    assert norm.track_running_stats


def test_random_numbers_are_the_same_both_times():
    """Dropout: the seed of the step and the part decides, in the trainer as here."""
    layer, drop, rows = nn.Linear(4, 4), nn.Dropout(0.5), torch.ones(6, 4)

    def gradient(parts):
        layer.zero_grad()

        def encode(part):
            torch.manual_seed(part)
            return [drop(layer(rows[part_of(6, part, parts)]))]

        backward_in_parts(layer, encode, parts, lambda features: features[0].sum())
        return layer.bias.grad.clone()

    torch.manual_seed(0)
    kept = [drop(torch.ones(3, 4)) for part in range(2) if torch.manual_seed(part)]
    torch.testing.assert_close(gradient(2), torch.cat(kept).sum(0))


def test_training_in_parts(samples, tmp_path):
    """At the start, a batch of 16 costs about ln 16, contrasted whole; parts of 4, each for itself, would cost ln 4."""
    settings = TrainSettings(
        preset="mobileclip_pico", samples=32, batch_size=16, image_size=32, context_length=8, accumulate=4
    )
    train(settings, tmp_path, samples=samples)
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["loss"] == pytest.approx(math.log(16), abs=0.9)


def test_too_many_parts(samples, tmp_path):
    settings = TrainSettings(batch_size=8, accumulate=5)
    with pytest.raises(mcliplib.UserError, match="batch_size 8 leaves 1 pairs for each of 1 processes x 5 parts"):
        train(settings, tmp_path, samples=samples)
