"""Reinforced shards back to samples and to training batches: ours, the public release's, joined with their images."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from mcliplab.datasets.compact import compact
from mcliplib import UserError, reinforce
from mcliplib.data import ReadReport, decode_image, write_shard
from mcliplib.reinforce import AugmentSettings, augment, read_reinforced
from mcliplib.tokenizer import Tokenizer
from mcliplib.train import TrainSettings, train
from mcliplib.train.batches import ReinforcedBatches, view_of
from mcliplib.train.data import load_reinforced
from mcliplib.train.streaming import pair_stream, reinforced_stream
from tests.reinforce.reinforce_run import SETTINGS, TEACHERS, TinyCaptioner, go, sample, write_input

NUMBER = 24
TOKENIZER = Tokenizer(12)
DIMS = (24, 40)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Two plain shards."""
    folder = tmp_path_factory.mktemp("plain")
    half = NUMBER // 2
    return [write_shard(folder / f"in-{n}.tar", map(sample, range(n * half, (n + 1) * half))) for n in range(2)]


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    """The same, reinforced."""
    output = tmp_path_factory.mktemp("reinforced")
    reinforce.run(
        [str(path) for path in plain], output, teachers=TEACHERS, captioner=TinyCaptioner(), settings=SETTINGS,
        progress=False,
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def shards(folder):
    return sorted(folder.glob("*.tar"))


@pytest.fixture(scope="module")
def samples(shards):
    return list(read_reinforced(shards, teacher_dims=DIMS))


@pytest.fixture
def release(samples, tmp_path):
    """The same set as the public release has it: no images, no captions, `param_aug` as JSON inside JSON."""
    stripped = []
    for one in samples:
        members = reinforce.to_members(replace(one, image=None, caption=None), "float32")
        inner = json.dumps(json.loads(members["paug.json"])["param_aug"])
        stripped.append((one.key, members | {"paug.json": json.dumps({"param_aug": inner}).encode()}))
    return write_shard(tmp_path / "release.tar", stripped)


def test_everything_comes_back(samples):
    assert [one.key for one in samples] == [sample(n)[0] for n in range(NUMBER)]
    for number, one in enumerate(samples):
        assert one.caption == f"picture of number {number}"
        assert one.image == sample(number)[1]["webp"]
        assert len(one.synthetic_captions) == SETTINGS.captions


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_public_release_is_joined_with_its_images_in_any_order(release, samples, tmp_path, seed):
    pictures = [sample(n) for n in range(NUMBER + 5)]
    if seed is not None:
        random.Random(seed).shuffle(pictures)
    images = write_shard(tmp_path / "images.tar", pictures)
    joined = list(read_reinforced(release, images=images, teacher_dims=DIMS))
    assert [(one.key, one.image, one.caption) for one in joined] == [
        (one.key, one.image, one.caption) for one in samples
    ]
    assert all(one.augmentations == other.augmentations for one, other in zip(joined, samples, strict=True))


def test_samples_without_their_other_half_are_counted(release, tmp_path):
    images = write_shard(tmp_path / "images.tar", [sample(n) for n in range(1, NUMBER)])
    report = ReadReport()
    assert len(list(read_reinforced(release, images=images, report=report))) == NUMBER - 1
    assert report.reasons == {"missing image": 1}
    with pytest.raises(UserError, match="cannot be used"):
        list(read_reinforced(release))


def test_damaged_samples_are_counted_by_what_is_wrong(samples, tmp_path):
    good = [(one.key, reinforce.to_members(one)) for one in samples]
    broken = [
        (key, members | {"paug.json": b"{"}) if place < 2 else (key, members)
        for place, (key, members) in enumerate(good)
    ]
    report = ReadReport()
    read = list(read_reinforced(write_shard(tmp_path / "broken.tar", broken), report=report))
    assert len(read) == NUMBER - 2
    assert report.reasons == {"paug.json: is not JSON": 2}


def test_a_cut_shard_gives_what_is_whole(shards, tmp_path):
    content = shards[0].read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(content[: len(content) // 2])
    report = ReadReport()
    read = list(read_reinforced(cut, report=report))
    assert 0 < len(read) < NUMBER // 2
    assert list(report.broken_shards) == [str(cut)]
    assert not report.skipped


def batches_of(samples, **changes):
    arguments = {"image_size": 32, "batch_size": 8, "seed": 0} | changes
    return ReinforcedBatches(samples, TOKENIZER, **arguments)


def test_all_parts_of_a_row_belong_together(samples):
    """Each row's picture, texts and embeddings are found in one sample, at one view and one caption."""
    by_text = {tuple(TOKENIZER(str(one.caption))[0].tolist()): one for one in samples}
    batches = batches_of(samples)
    views_met, texts_met = set(), set()
    for step in range(12):
        batch = batches(step)
        for row in range(8):
            one = by_text[tuple(batch.tokens[row].tolist())]
            view = next(n for n, emb in enumerate(one.image_emb) if torch.equal(emb, batch.image_emb[row]))
            expected = augment.apply(decode_image(one.image), one.augmentations[view], 32, SETTINGS.augment)
            torch.testing.assert_close(batch.pixels[row], expected, rtol=0, atol=1e-6)
            assert torch.equal(batch.text_emb[row], one.text_emb[0])
            said = next(
                n
                for n, text in enumerate(one.synthetic_captions)
                if torch.equal(one.text_emb[1 + n], batch.synthetic_emb[row])
                and torch.equal(TOKENIZER(text)[0], batch.synthetic_tokens[row])
            )  # both, as two captions of a sample may be equal
            views_met.add(view)
            texts_met.add(said)
    assert views_met == set(range(SETTINGS.augmentations))
    assert texts_met == set(range(SETTINGS.captions))


def test_batches_do_not_depend_on_what_is_kept_or_on_what_was_asked_before(samples):
    first, *others = (batches_of(samples, keep=keep) for keep in ("views", "images"))
    for step in range(6):
        for other in others:
            for a, b in zip(first(step), other(step), strict=True):
                assert torch.equal(a, b)
    for a, b in zip(first(2), batches_of(samples)(2), strict=True):
        assert torch.equal(a, b)


def test_an_epoch_sees_every_sample_once(samples):
    seen = torch.cat([batches_of(samples)(step).text_emb for step in range(3)])
    wanted = torch.stack([one.text_emb[0] for one in samples])
    assert (torch.cdist(seen, wanted) < 1e-4).sum(dim=0).tolist() == [1] * NUMBER


def test_samples_that_cannot_be_batched_are_refused(samples):
    with pytest.raises(UserError, match="has no image"):
        batches_of([replace(samples[0], image=None), *samples[1:]])
    with pytest.raises(UserError, match="text embeddings"):
        batches_of([replace(samples[0], text_emb=samples[0].text_emb[:1]), *samples[1:]])
    with pytest.raises(UserError, match=r"pictures cannot be used: .*not a whole picture"):
        batches_of([replace(one, image=b"nothing") for one in samples])(0)


def test_a_picture_that_cannot_be_decoded_is_left_out(samples, caplog):
    """It costs neither the run nor the size of its batches, and what stands in for it is the same in a resumed run."""
    bad = [replace(samples[0], image=samples[0].image[:80]), *samples[1:]]
    share = NUMBER * 0.1
    if share < 1:
        bad = [*bad, *[replace(one, key=f"{one.key}-again") for one in samples[1:]]]
    batches, again = batches_of(bad), batches_of(bad)
    for step in range(len(bad) // 8):
        one = batches(step)
        assert len(one.pixels) == len(batches_of(samples)(0).pixels)
        assert torch.equal(one.text_emb, again(step).text_emb)
    assert list(batches.unusable) == [0]
    assert caplog.text.count("left out") == 2  # once for each of the two


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_shows_every_sample_once_an_epoch(shards, samples, workers):
    stream = reinforced_stream(
        shards, TOKENIZER, image_size=32, batch_size=4, workers=workers, settings=SETTINGS.augment
    )
    batches = list(stream)
    assert all(batch.pixels.shape == (4, 3, 32, 32) for batch in batches)
    seen = torch.cat([batch.text_emb for batch in batches])
    wanted = torch.stack([one.text_emb[0] for one in samples])
    assert (torch.cdist(seen, wanted) < 1e-4).sum(dim=0).tolist() == [1] * NUMBER


def test_a_stream_is_decided_by_seed_and_epoch(shards):
    def first(**changes):
        return next(iter(reinforced_stream(shards, TOKENIZER, image_size=32, batch_size=8, **changes)))

    for a, b in zip(first(), first(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first().image_emb, first(epoch=1).image_emb)
    assert not torch.equal(first().image_emb, first(seed=1).image_emb)


def test_the_release_streams_with_its_images(release, tmp_path):
    images = write_shard(tmp_path / "images.tar", [sample(n) for n in range(NUMBER)])
    stream = reinforced_stream([release], TOKENIZER, images=[images], image_size=32, batch_size=8)
    assert sum(len(batch.pixels) for batch in stream) == NUMBER
    with pytest.raises(UserError, match="1 reinforced shards need as many shards of images"):
        reinforced_stream([release], TOKENIZER, images=[images, images], image_size=32, batch_size=8)


def test_plain_shards_stream_too(plain):
    batches = list(pair_stream(plain, TOKENIZER, image_size=32, batch_size=8))
    tokens = torch.cat([batch.tokens for batch in batches])
    wanted = TOKENIZER([f"picture of number {n}" for n in range(NUMBER)])
    assert sorted(map(tuple, tokens.tolist())) == sorted(map(tuple, wanted.tolist()))


def test_training_on_a_reinforced_set_learns_the_teachers_and_resumes_to_the_bit(folder, tmp_path):
    settings = TrainSettings(
        preset="mobileclip_pico", data=(str(folder),), reinforced=True, teacher_scales=(20.0,), samples=30 * NUMBER,
        batch_size=NUMBER, image_size=32, warmup_steps=4, learning_rate=3e-3, save_every=7, log_every=1,
    )  # fmt: skip
    whole = train(settings, tmp_path / "whole")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    again = train(settings, tmp_path / "again")
    resumed = train(settings, tmp_path / "again", resume=True)
    for a, b, c in zip(*(one.model.state_dict().values() for one in (whole, again, resumed)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_sets_that_are_not_reinforced_are_refused(plain, folder, tmp_path):
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        load_reinforced(str(plain[0].parent))
    known = load_reinforced(str(folder))
    assert known.teacher_dims == DIMS
    assert known.augment == SETTINGS.augment
    settings = TrainSettings(data=(str(folder),), reinforced=True, teacher_scales=(1.0, 2.0, 3.0), batch_size=8)
    with pytest.raises(UserError, match="3 numbers for 2 teachers"):
        train(settings, tmp_path)


@pytest.mark.parametrize(("dtype", "views", "atol"), [("int8", None, 0.01), ("int4", 2, 0.15)])
@pytest.mark.parametrize("with_images", [True, False])
def test_a_compact_set_keeps_similarities(folder, plain, samples, tmp_path, with_images, dtype, views, atol):
    images = None if with_images else [str(path) for path in plain]
    made = compact(folder, tmp_path / "small", dims=24, views=views, dtype=dtype, images=images)
    assert made.samples == NUMBER
    assert made.kept[0] == pytest.approx(1), "all of the first teacher's dimensions"
    assert 0.9 < made.kept[1] < 1
    small = load_reinforced(str(tmp_path / "small"))
    assert small.teacher_dims == (24, 24)
    for one, other in zip(samples, small.samples, strict=True):
        assert (one.key, one.caption, one.image) == (other.key, other.caption, other.image)
        assert one.augmentations[:views] == other.augmentations
        assert one.synthetic_captions == other.synthetic_captions
        was = one.image_emb[:views, :24] @ one.text_emb[:, :24].T
        now = other.image_emb[:, :24] @ other.text_emb[:, :24].T
        torch.testing.assert_close(now, was, rtol=0, atol=atol)
    with pytest.raises(UserError, match="dims must be at least 1"):
        compact(folder, tmp_path / "none", dims=0)
    with pytest.raises(UserError, match="views must be at least 1"):
        compact(folder, tmp_path / "none", dims=4, views=0)


def test_a_set_with_other_views_is_compacted_and_trained_on(plain, tmp_path):
    """Its parameters mean something else than the paper's: each reader must be told."""
    mild = AugmentSettings(num_ops=1, magnitude=6, crop_scale=(0.6, 1.0), flip_probability=0.5)
    settings = replace(SETTINGS, augment=mild)
    paths = [str(path) for path in plain]
    reinforce.run(paths, tmp_path / "set", teachers=TEACHERS, settings=settings, progress=False)
    compact(tmp_path / "set", tmp_path / "small", dims=24, images=paths)
    whole, small = load_reinforced(str(tmp_path / "set")), load_reinforced(str(tmp_path / "small"))
    assert whole.augment == small.augment == mild
    assert [one.augmentations for one in small.samples] == [one.augmentations for one in whole.samples]
    view = small.batches(TrainSettings(preset="mobileclip_pico", batch_size=8), TOKENIZER, 32).view(0, 0)
    picture = decode_image(small.samples[0].image)
    replayed = augment.replay(picture, small.samples[0].augmentations[0], 32, mild, key="")
    assert np.array_equal(view, np.asarray(replayed))


def test_a_part_of_a_set_is_the_same_with_less(folder):
    whole = load_reinforced(str(folder))
    part = whole.part(views=1, captions=2, teachers=(1,))
    assert part.teacher_dims == (DIMS[1],)
    for one, of in zip(part.samples, whole.samples, strict=True):
        assert one.augmentations == of.augmentations[:1]
        assert one.synthetic_captions == of.synthetic_captions[:2]
        assert torch.equal(one.image_emb, of.image_emb[:1, DIMS[0] :])
        assert torch.equal(one.text_emb, of.text_emb[:3, DIMS[0] :])
    settings = TrainSettings(preset="mobileclip_pico", batch_size=8, seed=3)
    first = part.batches(settings, TOKENIZER, 32)  # makes the views, which the whole set then shares
    second = whole.batches(settings, TOKENIZER, 32)
    assert first.view is second.view
    assert torch.equal(second(0).pixels, whole.part().batches(settings, TOKENIZER, 32)(0).pixels)
    with pytest.raises(UserError, match="views must be from 1 to"):
        whole.part(views=99)
    for teachers in ((2,), (), (0, 0)):
        with pytest.raises(UserError, match="teachers must be different places among the set's 2"):
            whole.part(teachers=teachers)


def test_teachers_come_in_the_order_asked_for(folder):
    whole = load_reinforced(str(folder))
    turned = whole.part(teachers=(1, 0))
    assert turned.teacher_dims == DIMS[::-1]
    for one, of in zip(turned.samples, whole.samples, strict=True):
        for rows, both in ((one.image_emb, of.image_emb), (one.text_emb, of.text_emb)):
            assert torch.equal(rows, torch.cat([both[:, DIMS[0] :], both[:, : DIMS[0]]], dim=1))


def test_a_run_does_not_go_on_with_other_answers_of_the_teachers(folder, tmp_path):
    whole = load_reinforced(str(folder))
    settings = TrainSettings(preset="mobileclip_pico", reinforced=True, batch_size=8, samples=16, image_size=32)
    train(settings, tmp_path, data=whole)
    train(settings, tmp_path, resume=True, data=load_reinforced(str(folder)))
    other = replace(whole, samples=[replace(one, text_emb=-one.text_emb) for one in whole.samples])
    with pytest.raises(UserError, match="other data under the same names"):
        train(settings, tmp_path, resume=True, data=other)


def test_other_samples_have_views_of_their_own(folder):
    whole = load_reinforced(str(folder))
    settings = TrainSettings(preset="mobileclip_pico", batch_size=8, seed=3)
    whole.batches(settings, TOKENIZER, 32).view(0, 0)
    backwards = replace(whole.part(), samples=whole.samples[::-1]).batches(settings, TOKENIZER, 32)
    assert np.array_equal(backwards.view(0, 0), view_of(backwards.samples[0], 0, 32, whole.augment))


@pytest.mark.parametrize("damage", ["zeros", "one bit"])
def test_a_shard_that_its_manifest_does_not_list_is_refused(tmp_path, damage):
    """Of the same length: a whole and empty archive to a reader of tar files, or one with another caption."""
    write_input(tmp_path / "in", shards=2)
    go(tmp_path / "in", tmp_path / "set")
    assert len(load_reinforced([str(tmp_path / "set")]).samples) == 20
    shard = tmp_path / "set" / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    place = content.index(b"picture of number")
    content[place] ^= 1
    shard.write_bytes(bytes(len(content)) if damage == "zeros" else content)
    with pytest.raises(UserError, match=r"shard-000001\.tar: is not the shard that"):
        load_reinforced([str(tmp_path / "set")])
