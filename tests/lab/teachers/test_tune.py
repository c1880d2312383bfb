"""Fine-tuning learns what there is to learn, forgets in proportion, and survives its file."""

import copy
import dataclasses

import pytest
import torch
from PIL import Image

from mcliplab.teachers.fit import photo_gate, save_trained
from mcliplab.teachers.tune import TuneData, TuneSettings, tune
from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.preprocess import preprocess_image
from mcliplib.reinforce.teachers.efficientnet import LiteFeatures, LiteTower
from mcliplib.reinforce.teachers.locked import Heads, LockedTeacher, load_trained
from mcliplib.reinforce.teachers.minilm import MiniLM

SETTINGS = TuneSettings(epochs=6, batch_size=8, image_size=32, locked=2, mixup=0.0, noise=0.0, jitter=0.0, mixing=1.0)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230), "white": (255, 255, 255)}


@pytest.fixture(scope="module")
def text():
    return MiniLM()


@pytest.fixture(scope="module")
def data(text):
    samples = [
        Sample(f"{name}-{number}", Image.new("RGB", (40, 40), tuple(max(0, part - number) for part in colour)), name)
        for name, colour in COLOURS.items()
        for number in range(4)
    ]
    texts = text([one.caption for one in samples]).clone()
    return TuneData(samples, texts[:, None].repeat(1, 4, 1))


@pytest.mark.slow
def test_it_learns_and_repeats_itself(text, data):
    losses, heads = [], Heads()
    again = copy.deepcopy(heads)
    tower = tune("lite0", text, heads, data, SETTINGS, lambda epoch, loss: losses.append(loss))
    assert losses[-1] < 0.9 * losses[0]
    assert not heads.training
    before = LiteTower("lite0").state_dict()
    assert tower.keys() == {name for name in before if "classifier" not in name}
    moved = {name.split(".")[2] for name in tower if not torch.equal(tower[name], before[name]) and ".blocks." in name}
    assert moved == {"2", "3", "4", "5", "6"}
    same = tune("lite0", text, again, data, SETTINGS)
    assert all(torch.equal(tower[name], same[name]) for name in tower)
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_nothing_of_the_tuned_tower_is_the_tower_of_before(text, data):
    untouched = tune("lite0", text, Heads(), data, dataclasses.replace(SETTINGS, epochs=1, mixing=0.0))
    before = LiteTower("lite0").state_dict()
    assert all(torch.equal(untouched[name], before[name]) for name in untouched)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"tower_rate": 0.0}, {"mixup": 0.6}, {"mixing": 1.5}, {"locked": 8}])
def test_settings_are_checked(change):
    with pytest.raises(UserError, match="tuning:"):
        TuneSettings(**change)


def test_a_tuned_teacher_survives_its_file(text, tmp_path):
    torch.manual_seed(0)
    before = LiteTower("lite0").state_dict()
    moved = {
        name: value + 0.05 * value.std(correction=0) * torch.randn_like(value)
        for name, value in before.items()
        if "classifier" not in name
    }
    save_trained(Heads().eval(), tmp_path / "tuned.safetensors", {"variant": "lite0", "image_size": "128"}, moved)
    assert (tmp_path / "tuned.safetensors").stat().st_size < 6e6
    assert load_trained(tmp_path / "tuned.safetensors").tower.keys() == moved.keys()
    pictures = [Image.new("RGB", (60, 60), colour) for colour in COLOURS.values()]
    tuned = LockedTeacher("lite0", heads=tmp_path / "tuned.safetensors", text=text)
    locked = LockedTeacher("lite0", heads=Heads(), text=text)
    cosines = (tuned.encode_images(pictures) * locked.encode_images(pictures)).sum(dim=1)
    assert 0.2 < cosines.mean() < 0.9999
    assert tuned.image_size == 128
    assert tuned.identity["tower_sha256"]
    assert "tower_sha256" not in locked.identity


def test_of_photographs_the_frozen_tower_is_asked_too(text, tmp_path):
    torch.manual_seed(0)
    tower = {
        name: value + 0.05 * value.std(correction=0) * torch.randn_like(value)
        for name, value in LiteTower("lite0").state_dict().items()
        if "classifier" not in name
    }
    pixels = torch.rand(3, 3, 64, 64)
    answers = {}
    for says, bias in (("photo", 1.0), ("drawing", -1.0)):
        gate = torch.nn.Linear(1280, 1)
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, bias)
        save_trained(Heads().eval(), tmp_path / f"{says}.safetensors", {"variant": "lite0"}, tower, gate)
        answers[says] = LockedTeacher("lite0", heads=tmp_path / f"{says}.safetensors", text=text)
    save_trained(Heads().eval(), tmp_path / "none.safetensors", {"variant": "lite0"}, tower)
    without = LockedTeacher("lite0", heads=tmp_path / "none.safetensors", text=text).encode_pixels(pixels)
    photo, drawing = (answers[says].encode_pixels(pixels) for says in ("photo", "drawing"))
    assert torch.equal(drawing, without)
    frozen = answers["photo"].features(pixels)
    assert torch.allclose(photo, answers["photo"].heads.recall(without, frozen), atol=1e-5)
    assert not torch.allclose(photo, without, atol=1e-2)
    assert answers["photo"].identity["gate_sha256"] != answers["drawing"].identity["gate_sha256"]


def test_a_gate_tells_photographs_from_drawings(text):
    photo = {"style": "photo"}
    noise = [Image.effect_noise((40, 40), 20.0 + number).convert("RGB") for number in range(6)]
    flat = [Image.new("RGB", (40, 40), colour) for colour in [*COLOURS.values(), (9, 9, 9), (90, 90, 9)]]
    samples = [Sample(f"p{n}", image, "noise", photo) for n, image in enumerate(noise)]
    samples += [Sample(f"d{n}", image, "colour", {"style": "noto"}) for n, image in enumerate(flat)]
    tower = {name: value for name, value in LiteTower("lite0").state_dict().items() if "classifier" not in name}
    gate = photo_gate("lite0", text, tower, samples)
    pixels = torch.stack([preprocess_image(one.image, 128) for one in samples])
    features = LiteFeatures("lite0", text)
    with torch.no_grad():
        found = gate(features(pixels).features[:, :1280])[:, 0] > 0
    assert found.tolist() == [True] * 6 + [False] * 6
    assert photo_gate("lite0", text, tower, samples[:6]) is None


def test_an_impossible_size_is_refused(tmp_path):
    save_trained(Heads(), tmp_path / "one.safetensors", {"image_size": "1000000"})
    with pytest.raises(UserError, match=r"one\.safetensors: no trained heads \(image_size must be from 1 to 1024"):
        load_trained(tmp_path / "one.safetensors")
