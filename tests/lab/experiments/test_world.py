"""Vague captions, folds whose teachers have not seen them, and the two sets made from them."""

from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from mcliplab.captioner.nearest import NearestCaptioner
from mcliplab.experiments.folds import fold_of, outside
from mcliplab.experiments.noise import with_vague_captions
from mcliplab.experiments.world import World, make_world
from mcliplib.data import Sample, concept_of, load_samples
from mcliplib.errors import UserError
from mcliplib.preprocess import preprocess_image
from mcliplib.train.data import load_reinforced
from tests.reinforce.reinforce_run import TinyTeacher, contents


@dataclass
class Looking(TinyTeacher):
    """A tiny teacher that also takes pictures."""

    def encode_images(self, images):
        return self.encode_pixels(torch.stack([preprocess_image(image, self.image_size) for image in images]))


def pictures(number: int = 40) -> list[Sample]:
    """Four drawings of each of ten things, with keywords."""
    return [
        Sample(
            f"style{index % 4}-thing{index // 4}",
            Image.new("RGB", (24, 24), (index * 6, 255 - index * 6, index * 37 % 256)),
            f"big thing {index // 4}",
            {"keywords": [f"tag {index // 4}", f"big thing {index // 4}."], "style": f"style{index % 4}"},
        )
        for index in range(number)
    ]


def test_a_caption_is_the_name_or_a_tag_and_stays_so():
    samples = pictures()
    for names in (0.0, 0.3, 1.0):
        vague = with_vague_captions(samples, names)
        assert [one.caption for one in vague] == [
            one.caption for one in reversed(with_vague_captions(samples[::-1], names))
        ]
        for one, before in zip(vague, samples, strict=True):
            assert one.caption in (before.caption, before.meta["keywords"][0])
            assert one.meta["keywords"] == []
            assert one.image is before.image
    named = [{one.key for one in with_vague_captions(samples, names) if "big" in one.caption} for names in (0.3, 0.6)]
    assert named[0] < named[1]


def test_without_keywords_a_word_of_the_caption_serves():
    image = Image.new("RGB", (8, 8))
    sentence = Sample("a", image, "A dog and a ball.")
    assert with_vague_captions([sentence], 0.0)[0].caption in ("dog", "ball")
    assert with_vague_captions([Sample("b", image, "horse")], 0.0)[0].caption == "horse"


def test_most_shipped_pictures_have_a_tag():
    samples = load_samples("train")
    vague = with_vague_captions(samples, 0.0)
    same = sum(one.caption == other.caption for one, other in zip(samples, vague, strict=True))
    assert same < 0.05 * len(samples)


def test_folds_are_even_and_part_the_drawings_of_a_concept():
    samples = load_samples("train")
    sizes = [sum(fold_of(one.key, 4) == fold for one in samples) for fold in range(4)]
    assert max(sizes) < 1.1 * min(sizes)
    learned = {concept_of(one.caption) for one in outside(samples, 0, 4)}
    taught = [one for one in samples if fold_of(one.key, 4) == 0]
    drawn_by_others = [one for one in taught if one.key.startswith(("noto", "twemoji"))]
    assert sum(concept_of(one.caption) in learned for one in drawn_by_others) > 0.8 * len(drawn_by_others)


def test_captions_are_a_function_of_picture_key_and_seed():
    captioner = NearestCaptioner(Looking("one", 24, 32), ["thing 1", "thing 2", "thing 1", "tag"], scale=5.0)
    images, keys = [one.image for one in pictures(6)], [one.key for one in pictures(6)]
    found = captioner.caption(images, keys, 4, 0)
    assert [len(texts) for texts in found] == [4] * 6
    assert captioner.caption(images[3:], keys[3:], 4, 0) == found[3:]
    assert captioner.caption(images, keys, 4, 1) != found
    assert len(captioner.texts) == 3


def test_both_sets_have_the_same_pictures_and_captions(tmp_path):
    samples, asked = pictures(), []

    def teacher_of(fold):
        asked.append(fold)
        return Looking("one", 24, 32)

    world = World(names=0.3, wrong=0.2, folds=2, augmentations=2, captions=3)
    make_world(tmp_path, world, teacher_of, samples=samples)
    assert asked == [0, 1]
    plain = load_samples(str(tmp_path / "plain"))
    assert {one.key for one in plain} == {one.key for one in samples}
    assert all("keywords" not in one.meta for one in plain)
    wrong = sum(one.caption[-1] != one.key[-1] for one in plain)
    assert 0 < wrong < 0.5 * len(plain)
    reinforced = load_reinforced([str(tmp_path / "reinforced" / f"fold-{fold}") for fold in range(2)])
    by_key = {one.key: one for one in plain}
    for one in reinforced.samples:
        assert one.caption == by_key[one.key].caption
        allowed = {other.caption for other in outside(samples, fold_of(one.key, 2), 2)}
        assert set(one.synthetic_captions) <= allowed
        assert len(one.synthetic_captions) == 3
    before = contents(tmp_path)
    make_world(tmp_path, world, teacher_of, samples=samples)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("change", [{"names": -0.1}, {"names": 0.5, "wrong": 2.0}, {"names": 0.5, "folds": 1}])
def test_worlds_are_checked(change):
    with pytest.raises(UserError, match="must be"):
        World(**change)
