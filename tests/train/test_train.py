"""Training on a handful of real-looking pairs: it learns, resumes to the bit, and says what is wrong."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mcliplib
from mcliplib import UserError, files
from mcliplib.data import Sample
from mcliplib.optimization import warmup_cosine
from mcliplib.train import TrainSettings, load_settings, train
from mcliplib.train.batches import PairBatches, crop_of, jitter_colours, rows_of
from mcliplib.train.metrics import read_metrics
from mcliplib.train.settings import settings_from
from tests.conftest import refused
from tests.train.conftest import COLOURS

TINY = TrainSettings(
    samples=128, batch_size=8, image_size=32, context_length=8, save_every=4, log_every=1, warmup_steps=2
)


def weights(result):
    return list(result.model.state_dict().values())


def test_it_learns_colours(samples, tmp_path):
    settings = TrainSettings(
        samples=800, batch_size=8, image_size=32, context_length=8, warmup_steps=5, learning_rate=3e-3
    )
    result = train(settings, tmp_path, samples=samples)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(np.log(8), abs=0.7)
    assert result.loss < 0.5 * lines[0]["loss"]
    classes = mcliplib.evaluate.class_features(result.model, [f"a {c} square" for c in COLOURS], ("{}",))
    features = mcliplib.evaluate.image_features(result.model, [Image.new("RGB", (50, 50), c) for c in COLOURS])
    assert mcliplib.evaluate.zero_shot(features, classes, torch.arange(8)).top1 >= 0.75


def test_it_leaves_a_model_metrics_and_events(samples, tmp_path):
    result = train(TINY, tmp_path, samples=samples)
    assert mcliplib.load_model(result.checkpoint).config.vocab is not None
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(16))
    assert any(path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir())


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [0, 3, 4, 7, 15])
def test_an_interrupted_run_ends_the_same(samples, tmp_path, monkeypatch, stop_at):
    whole = train(TINY, tmp_path / "whole", samples=samples)
    original = PairBatches.__call__

    def stopping(self, step):
        if step == stop_at:
            raise Stop
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(PairBatches, "__call__", stopping)
        with pytest.raises(Stop):
            train(TINY, tmp_path / "cut", samples=samples)
    resumed = train(TINY, tmp_path / "cut", resume=True, samples=samples)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    steps = [line["step"] for line in read_metrics(tmp_path / "cut" / "metrics.jsonl")]
    assert steps == list(range(16))


def test_resuming_a_finished_run_changes_nothing(samples, tmp_path):
    first = train(TINY, tmp_path, samples=samples)
    again = train(TINY, tmp_path, resume=True, samples=samples)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    assert again.loss == first.loss


def test_other_data_under_the_same_name_is_refused(samples, tmp_path):
    train(TINY, tmp_path, samples=samples)
    changed = [*samples[:-1], Sample("new", samples[-1].image, "a pink square", {})]
    with pytest.raises(UserError, match="other data under the same names"):
        train(TINY, tmp_path, resume=True, samples=changed)


def test_another_run_is_not_overwritten(samples, tmp_path):
    train(TINY, tmp_path, samples=samples)
    with pytest.raises(UserError, match="holds a run already; give --resume auto"):
        train(TINY, tmp_path, samples=samples)
    with pytest.raises(UserError, match=r"other settings \(seed was 0\)"):
        train(TrainSettings(**{**vars(TINY), "seed": 1}), tmp_path, resume=True, samples=samples)


def test_too_few_pairs(samples, tmp_path):
    with pytest.raises(UserError, match="batch_size 8 is more than the 4 pairs"):
        train(TINY, tmp_path, samples=samples[:4])


def test_batches_depend_on_the_step_alone(samples):
    tokenizer = mcliplib.get_tokenizer("mobileclip_nano")
    batches = PairBatches(samples, tokenizer, image_size=32, batch_size=4, seed=3)
    ahead = [batches(step) for step in range(9)]
    for step in (8, 0, 5):
        assert torch.equal(batches(step).pixels, ahead[step].pixels)
        assert torch.equal(batches(step).tokens, ahead[step].tokens)
    other = PairBatches(samples, tokenizer, image_size=32, batch_size=4, seed=4)
    assert not torch.equal(other(0).tokens, ahead[0].tokens)


def test_an_epoch_sees_every_pair_once(samples):
    tokenizer = mcliplib.get_tokenizer("mobileclip_nano")
    batches = PairBatches(samples, tokenizer, image_size=32, batch_size=4, seed=0)
    seen = np.concatenate([rows_of(step, len(batches.samples), batches.batch_size, batches.seed) for step in range(4)])
    assert sorted(seen) == list(range(16))


@given(width=st.integers(1, 90), height=st.integers(1, 90), area=st.floats(0.05, 1), seed=st.integers(0, 2**32 - 1))
def test_crops_of_pictures_of_any_shape(width, height, area, seed):
    """Each is a window of the picture: of a ramp, it keeps a range of the shades, in order."""
    ramp = Image.fromarray(np.linspace(0, 255, width).astype(np.uint8)[None].repeat(height, 0)).convert("RGB")
    crop = crop_of(ramp, 8, np.random.default_rng(seed), area)
    assert crop.shape == (8, 8, 3)
    assert (np.diff(crop[:, :, 0].astype(int), axis=1) >= 0).all()
    assert (crop == crop[:1]).all()


def test_jitter_moves_colours_and_stays_in_range():
    images = torch.full((64, 3, 2, 2), 0.9)
    moved = jitter_colours(images.clone(), np.random.default_rng(0), 0.3)
    assert moved.min() >= 0
    assert moved.max() == 1
    assert moved.std(dim=0).mean() > 0.05
    assert torch.equal(moved[:, :, :1, :1].expand_as(moved), moved)  # one gain and shift a channel
    assert torch.equal(jitter_colours(images, np.random.default_rng(0), 0.0), images)


@pytest.mark.parametrize(("mirror", "low", "high"), [(0.0, 0, 0), (0.5, 16, 48), (1.0, 64, 64)])
def test_pictures_are_mirrored_as_often_as_asked(mirror, low, high):
    left_half = Image.new("RGB", (40, 40), "white")
    left_half.paste("black", (0, 0, 20, 40))
    samples = [Sample(str(i), left_half, "half", {}) for i in range(64)]
    tokenizer = mcliplib.get_tokenizer("mobileclip_nano")
    batches = PairBatches(samples, tokenizer, image_size=32, batch_size=64, seed=0, min_crop=1.0, mirror=mirror)
    pixels = batches(0).pixels
    dark_right = (pixels[:, 0, :, :4].mean(dim=(1, 2)) > pixels[:, 0, :, -4:].mean(dim=(1, 2))).sum()
    assert low <= dark_right <= high


def test_schedule():
    rates = [warmup_cosine(step, peak=2.0, warmup_steps=4, steps=20) for step in range(21)]
    assert rates[0] == 0.5
    assert max(rates) == rates[3] == rates[4] == 2.0
    assert rates[12] == pytest.approx(1.0)
    assert rates[20] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(rates[4:]))


def test_settings_from_yaml(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("preset: mobileclip_nano\ndata: emoji-noto\nlearning_rate: 2e-3\nsamples: 1000\n")
    settings = load_settings(path, seed=7)
    assert settings == TrainSettings(data=("emoji-noto",), learning_rate=2e-3, samples=1000, seed=7)


def test_settings_survive_yaml(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(vars(TINY)))))
    assert load_settings(path) == TINY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample: 3", "no such setting: sample; known: "),
        ("samples: many", "samples must be int, got 'many'"),
        ("batch_size: 2.5", "batch_size must be int, got 2.5"),
        ("restrict_vocab: 'no way'", "restrict_vocab must be bool"),
        ("batch_size: 1", "batch_size must be at least 2"),
        ("preset: mobileclip_s9", "unknown model 'mobileclip_s9'"),
        ("dtype: int8", "unknown dtype 'int8'"),
        ("min_crop: 0", "min_crop must be in"),
        ("jitter: 1", "jitter must be in"),
        ("synthetic_share: 1.5", "synthetic_share must be in"),
        ("synthetic_share: 0.7", "there are none here"),
        ("{synthetic_share: 0.7, reinforced: true, captions: 0}", "there are none here"),
        ("context_length: 2", "context_length must be at least 3"),
        ("image_size: 16", "image_size must be at least 32"),
        ("seed: -1", "seed must be at least 0"),
        ("beta2: 1.5", "beta2 must be in"),
        ("warmup_steps: -5", "warmup_steps must be at least 0"),
        ("clip_norm: 0", "clip_norm must be positive"),
        ("mirror: -3", "mirror must be in"),
        ("keyword_captions: 7", "keyword_captions must be in"),
        ("learning_rate: .nan", "learning_rate must be finite"),
        ("teacher_scales: [50, .inf]", "teacher_scales must be finite"),
        ("samples: .inf", "samples must be int, got inf"),
        ("data: []", "data names no set"),
        ("data: null", "data must be tuple, got None"),
        ("[1, 2", "is not YAML"),
        ("- 1", "must hold `field: value` lines"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with refused(UserError, message):
        load_settings(path)


def test_missing_settings_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_settings(tmp_path / "gone.yaml")


def test_null_is_only_for_optional_settings():
    assert settings_from({"image_size": None}).image_size is None
    with pytest.raises(UserError, match="samples must be int, got None"):
        settings_from({"samples": None})


def test_a_second_run_in_the_same_folder_is_refused(samples, tmp_path):
    """Both would end with success, with one model and their metrics mixed."""
    with files.locked(tmp_path), pytest.raises(UserError, match="another run writes here"):
        train(TINY, tmp_path, samples=samples)
    train(TINY, tmp_path, samples=samples)
    assert not (tmp_path / files.LOCK).exists()
