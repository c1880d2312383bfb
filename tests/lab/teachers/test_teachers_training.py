"""Heads learn what there is to learn, the same way each time; files and caches give back what was put in."""

import dataclasses

import pytest
import torch

from mcliplab.teachers.fit import save_trained
from mcliplab.teachers.training import (
    HeadData,
    HeadSettings,
    caption_numbers,
    soft_cross_entropy,
    train_heads,
    ways_to_say,
)
from mcliplab.teachers.views import image_views
from mcliplib.cli import main
from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.reinforce.augment import AugmentSettings
from mcliplib.reinforce.teachers.efficientnet import IMAGE_WIDTH, Frozen, conse
from mcliplib.reinforce.teachers.locked import Heads, load_trained

SETTINGS = HeadSettings(
    epochs=15, batch_size=16, image_hidden=32, text_hidden=16, learning_rate=1e-2, mixup=0.1, noise=0.0
)


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 64, IMAGE_WIDTH, generator=draw)
    texts = torch.nn.functional.normalize(torch.randn(64, 2, 384, generator=draw), dim=-1)
    return HeadData(images, texts, torch.tensor([0.7, 0.3]), torch.arange(64) // 2)


def test_training_reduces_the_loss_and_repeats_itself(data):
    losses = []
    heads = train_heads(data, SETTINGS, lambda epoch, loss: losses.append(loss))
    torch.manual_seed(123)  # the global generator has no say, and is left alone
    before = torch.get_rng_state()
    again = train_heads(data, SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)
    other = train_heads(data, dataclasses.replace(SETTINGS, seed=1))
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), again.parameters(), strict=True))
    assert not torch.equal(heads.image[1].weight, other.image[1].weight)
    assert not heads.training


def test_the_target_is_shared_by_equal_captions():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    logs = logits.log_softmax(dim=1)[0]
    found = soft_cross_entropy(logits, torch.tensor([[1.0, 0.0, 1.0]]))
    torch.testing.assert_close(found, -(logs[0] + logs[2]) / 2)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 1}, {"dropout": 1.0}, {"mixup": 0.6}])
def test_settings_are_checked(change):
    with pytest.raises(UserError, match="heads:"):
        HeadSettings(**change)


def test_heads_survive_their_file(tmp_path, data):
    heads = train_heads(data, SETTINGS)
    save_trained(heads, tmp_path / "one.safetensors", {"variant": "lite0"})
    found, _, _, about = load_trained(tmp_path / "one.safetensors")
    torch.testing.assert_close(
        found.encode_image(data.images[0]), heads.encode_image(data.images[0]), rtol=0, atol=2e-3
    )
    assert about["variant"] == "lite0"
    assert not any(value.requires_grad for value in found.parameters())


def test_what_is_no_file_of_heads_is_refused(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name in ("broken.safetensors", "missing.safetensors"):
        with pytest.raises(UserError, match=name):
            load_trained(tmp_path / name)


def test_conse_weighs_the_likeliest_names():
    names = torch.eye(4)
    logits = torch.tensor([[3.0, 2.0, -5.0, 1.0]])
    expected = torch.tensor([[3.0, 2.0, -torch.inf, -torch.inf]]).softmax(dim=1)
    torch.testing.assert_close(conse(logits, names, top=2), expected / expected.norm())


def test_heads_start_as_the_frozen_towers():
    features, said = torch.randn(3, IMAGE_WIDTH), torch.nn.functional.normalize(torch.randn(3, 384), dim=-1)
    expected = torch.nn.functional.normalize(features[:, -384:], dim=-1)
    torch.testing.assert_close(Heads().eval().encode_image(features), expected)
    torch.testing.assert_close(Heads().eval().encode_text(said), said)


def test_a_sure_tower_keeps_more_of_what_it_knows(data):
    heads, features = train_heads(data, SETTINGS), data.images[0, :4]
    known = torch.nn.functional.normalize(features[:, -384:], dim=-1)
    features = torch.cat([features[:, :-384], known], dim=-1)
    unsure, sure = (
        heads.recall(heads.encode_image(features), Frozen(features, confidence))
        for confidence in (torch.zeros(4, 1), torch.ones(4, 1))
    )
    torch.testing.assert_close(unsure, heads.encode_image(features))
    assert ((sure * known).sum(dim=-1) > (unsure * known).sum(dim=-1)).all()
    torch.testing.assert_close(sure.norm(dim=-1), torch.ones(4))


class _Features:
    """A tower that counts its questions."""

    def __init__(self):
        self.tower, self.asked, self.variant = self, 0, "lite0"

    def identity(self):
        return {"weights": "none"}

    def __call__(self, pixels):
        self.asked += len(pixels)
        return Frozen(pixels.mean(dim=(1, 2, 3))[:, None].expand(-1, IMAGE_WIDTH), torch.ones(len(pixels), 1))


def test_views_are_computed_once(tmp_path, colourful):
    samples = [Sample(f"k{i}", colourful.resize((40 + i, 30)), "x") for i in range(3)]
    features, settings = _Features(), AugmentSettings(size=16)
    first = image_views(features, samples, settings, views=2, seed=0, cache=tmp_path)
    again = image_views(features, samples, settings, views=2, seed=0, cache=tmp_path)
    image_views(features, samples, settings, views=2, seed=1, cache=tmp_path)
    assert features.asked == 9, "the plain view does not depend on the seed"
    assert first.shape == (2, 3, IMAGE_WIDTH)
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_texts_of_a_sample(colourful):
    sample = Sample("k", colourful, "A gnu.", {"style": "photo", "keywords": ["animal", "horns"]})
    assert ways_to_say(sample) == ("A gnu.", "a photo of a gnu.", "gnu, animal, horns", "animal, horns")
    bare = Sample("k", colourful, "gnu")
    assert ways_to_say(bare) == ("gnu", "a drawing of a gnu.", "gnu", "gnu")
    assert caption_numbers([sample, bare, Sample("k", colourful, "a GNU")]) == [0, 1, 0]


def test_the_command_refuses_before_it_works(tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    assert main(["teachers", "train", "--output", str(file)]) == 2
    assert main(["teachers", "score", "--record", "Bad Name"]) == 2
    assert main(["teachers", "train", "--threads", "0"]) == 2
    assert "name a folder" in capsys.readouterr().err
