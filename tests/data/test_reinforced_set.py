"""The shipped reinforced set: whole, of these pictures, by these teachers and this captioner, and small."""

import hashlib
import subprocess

import pytest
import torch

from mcliplib.data import concept_of, data_root, list_datasets, load_samples
from mcliplib.reinforce import augment
from mcliplib.reinforce.manifest import read_finished
from mcliplib.train.batches import picture_of
from mcliplib.train.data import ReinforcedData, load_reinforced

FOLDER = data_root() / "train-reinforced"


@pytest.fixture(scope="module")
def manifest():
    return read_finished(FOLDER)


@pytest.fixture(scope="module")
def data() -> ReinforcedData:
    return load_reinforced("train-reinforced")


def test_shards_are_those_of_the_manifest(manifest):
    assert sorted(path.name for path in FOLDER.glob("*.tar*")) == sorted(one["file"] for one in manifest["shards"])
    for shard in manifest["shards"]:
        content = (FOLDER / shard["file"]).read_bytes()
        assert len(content) == shard["bytes"]
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]


def test_every_training_pair_is_there_with_all_that_belongs_to_it(data, manifest):
    plain = {one.key: one for one in load_samples(list_datasets("train"))}
    assert sorted(one.key for one in data.samples) == sorted(plain)
    settings = manifest["identity"]["settings"]
    for one in data.samples:
        assert one.caption == plain[one.key].caption
        assert len(one.augmentations) == settings["augmentations"]
        assert len(one.synthetic_captions) == settings["captions"]
    for one in data.samples[::400]:  # the parameters are of these pictures
        assert picture_of(one).size == plain[one.key].image.size
        assert augment.apply(picture_of(one).image, one.augmentations[-1], 32).shape == (3, 32, 32)


def test_it_was_made_by_the_shipped_captioner_and_teachers(manifest):
    from mcliplib.reinforce.captioners import make_captioner
    from mcliplib.reinforce.teachers import make_teacher

    captioner = make_captioner("decoder")
    assert manifest["identity"]["captioner"]["identity"] == dict(captioner.identity)
    for teacher in manifest["identity"]["teachers"]:
        assert teacher["identity"] == dict(make_teacher(teacher["name"]).identity)


def test_the_small_form_says_what_the_teachers_say(data, manifest):
    """Asked again about a few stored views and captions, they say nearly the same: also in the small form."""
    from mcliplib.reinforce.teachers import make_teacher

    teacher = make_teacher(manifest["identity"]["teachers"][1]["name"])
    chosen = data.samples[::250]
    pictures = [picture_of(one).image for one in chosen]
    drawn = [one.augmentations[0] for one in chosen]
    views = torch.stack([augment.apply(*pair, teacher.image_size) for pair in zip(pictures, drawn, strict=True)])
    asked = teacher.encode_pixels(views) @ teacher.encode_texts([str(one.caption) for one in chosen]).T
    part = data.part(teachers=(1,))
    stored = {one.key: one for one in part.samples}
    images = torch.stack([stored[one.key].image_emb[0] for one in chosen])
    texts = torch.stack([stored[one.key].text_emb[0] for one in chosen])
    found = images @ texts.T
    assert torch.corrcoef(torch.stack([found.flatten(), asked.flatten()]))[0, 1] > 0.95
    assert (found.argmax(dim=1) == asked.argmax(dim=1)).float().mean() > 0.7


def test_captions_are_not_the_real_ones(data):
    """Cross-fitting: hardly any synthetic caption repeats its picture's own caption."""
    said = [text == concept_of(str(one.caption)) for one in data.samples for text in map(str, one.synthetic_captions)]
    assert sum(said) / len(said) < 0.02


def test_all_data_stay_small():
    root = data_root().parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    files = subprocess.run(["git", "ls-files", "-z", "data"], cwd=root, capture_output=True, check=True).stdout
    sizes = [path.stat().st_size for name in files.decode().split("\0") if name and (path := root / name).is_file()]
    assert sum(sizes) < 60_000_000
