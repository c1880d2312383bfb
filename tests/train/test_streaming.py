"""Streams: nothing lost, nothing twice, and a run that goes on at the very sample."""

import dataclasses
import io
import logging
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from mcliplib.data import write_shard
from mcliplib.errors import UserError
from mcliplib.tokenizer import Tokenizer
from mcliplib.train import streaming, trainer
from mcliplib.train.data import StreamData, load_data, stream_data, wants_stream
from mcliplib.train.settings import TrainSettings
from mcliplib.train.streaming import Position, Stream, pair_recipe, pair_stream
from mcliplib.train.trainer import train

TOKENIZER = Tokenizer()
PER_SHARD, SHARDS = 13, 5
SETTINGS = TrainSettings(
    preset="mobileclip_pico",
    samples=80,
    batch_size=8,
    warmup_steps=2,
    image_size=32,
    context_length=16,
    dtype="float32",
    stream=True,
    shuffle=10,
    save_every=3,
    log_every=1,
    keyword_captions=0.5,
    mirror=0.5,
    jitter=0.1,
)


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("shards")
    for shard in range(SHARDS):
        first = shard * PER_SHARD
        write_shard(
            made / f"{shard:06d}.tar",
            [
                (f"k{n:03d}", {"png": picture(n), "txt": f"number {n}".encode(), "json": b'{"keywords": ["a", "b"]}'})
                for n in range(first, first + PER_SHARD)
            ],
        )
    return made


def settings_for(folder: Path | str, **changes: object) -> TrainSettings:
    return dataclasses.replace(SETTINGS, data=(str(folder),), **changes)


def shards_of(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("*.tar")))


def texts_of(batches) -> Counter[str]:
    return Counter(str(row.tolist()) for batch in batches for row in batch.tokens)


@pytest.mark.parametrize("workers", [0, 1, 2, 7])  # seven readers of five shards share each shard's samples
@pytest.mark.parametrize("buffer", [1, 6, 1000])
def test_a_pass_gives_every_sample_once(folder, workers, buffer):
    batches = list(
        pair_stream(shards_of(folder), TOKENIZER, image_size=32, batch_size=8, workers=workers, buffer=buffer)
    )
    met = texts_of(batches)
    assert set(met.values()) == {1}
    assert len(met) == PER_SHARD * SHARDS


@pytest.mark.parametrize("processes", [2, 3, 9])
def test_processes_share_a_pass(folder, processes, monkeypatch):
    met: Counter[str] = Counter()
    monkeypatch.setattr(streaming, "world_size", lambda: processes)
    for number in range(processes):
        monkeypatch.setattr(streaming, "rank", lambda number=number: number)
        met += texts_of(pair_stream(shards_of(folder), TOKENIZER, image_size=32, batch_size=4))
    assert set(met.values()) == {1}
    assert len(met) == PER_SHARD * SHARDS


def test_passes_differ_in_order_and_crops_and_repeat_with_the_seed(folder):
    def first(**changes) -> torch.Tensor:
        return next(iter(pair_stream(shards_of(folder), TOKENIZER, image_size=32, batch_size=8, **changes))).pixels

    assert torch.equal(first(), first())
    assert not torch.equal(first(), first(epoch=1))
    assert not torch.equal(first(), first(seed=1))


def endless(folder: Path, workers: int = 0, **changes: object) -> Stream:
    recipe = pair_recipe(TOKENIZER, image_size=32)
    return Stream(tuple(shards_of(folder)), recipe, rows=6, block=10, workers=workers, **changes)


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("steps", [1, 7, 40])
def test_a_stream_goes_on_where_it_stopped(folder, workers, steps):
    """To the bit, wherever it is cut: within a block, at its end, in a later pass."""
    stream = endless(folder, workers)
    positions: dict[int, tuple[int, ...]] = dict(stream.begun())
    whole = iter(stream.loader())
    for _ in range(steps):
        delivered = next(whole)
        positions[delivered.reader] = delivered.position
    again = iter(stream.resumed(steps, positions).loader())
    for _ in range(12):
        one, other = next(whole), next(again)
        assert one.position == other.position
        assert torch.equal(one.batch.pixels, other.batch.pixels)
        assert torch.equal(one.batch.tokens, other.batch.tokens)


def test_other_readers_begin_a_new_pass(folder, caplog):
    stream = endless(folder).resumed(5, {0: Position(2, 1, 1, 1), 1: Position(3)})
    assert (stream.epoch, stream.start) == (4, {})
    assert "begins pass 4 anew" in caplog.text


def test_samples_are_seen_equally_often(folder):
    """Twelve passes of 65 samples: none is met eleven or thirteen times before all were met twelve times."""
    met: Counter[str] = Counter()
    for _, delivered in zip(range(130), endless(folder).loader(), strict=False):  # 780 samples
        met += texts_of([delivered.batch])
    assert set(met.values()) == {12}


class Stopped(Exception):
    pass


def test_training_from_a_stream_resumes_to_the_bit(folder, tmp_path, monkeypatch):
    settings = settings_for(folder)
    whole = train(settings, tmp_path / "whole")
    step_of = trainer.train_step

    def stopping(*arguments, **named):
        if arguments[4] == 7:
            raise Stopped
        return step_of(*arguments, **named)

    monkeypatch.setattr(trainer, "train_step", stopping)
    with pytest.raises(Stopped):
        train(settings, tmp_path / "cut")
    monkeypatch.setattr(trainer, "train_step", step_of)
    resumed = train(settings, tmp_path / "cut", resume=True)
    assert whole.checkpoint.read_bytes() == resumed.checkpoint.read_bytes()
    assert resumed.model.config.vocab is None  # nobody knows a stream's texts beforehand


def test_urls_and_what_is_streamed(folder, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in folder.glob("*.tar"):
        memory.pipe_file(f"/set/{path.name}", path.read_bytes())
    url = "memory://set/{000000..000004}.tar"
    settings = settings_for(url, stream=None)
    assert wants_stream(settings)
    data = load_data(settings, 32)
    assert isinstance(data, StreamData)
    assert len(data.shards) == SHARDS
    batches = data.stream(settings, TOKENIZER, 32, 8, 0).loader()
    assert next(iter(batches)).batch.pixels.shape == (8, 3, 32, 32)
    assert not wants_stream(settings_for(folder, stream=None))
    assert wants_stream(settings_for(folder))


def test_large_local_sets_are_streamed(folder, monkeypatch):
    monkeypatch.setattr("mcliplib.train.data.STREAM_ABOVE", 1000)
    assert wants_stream(settings_for(folder, stream=None))
    assert not wants_stream(settings_for(folder, stream=False))


def test_bad_samples_are_left_out_by_name(folder, tmp_path, caplog):
    good = [(f"g{n}", {"png": picture(n), "txt": f"number {n}".encode()}) for n in range(20)]
    bad = [
        ("cut", {"png": picture(1)[:300], "txt": b"cut"}),
        ("mute", {"png": picture(1), "txt": b"  "}),
    ]
    path = write_shard(tmp_path / "a.tar", good + bad)
    with caplog.at_level(logging.WARNING):
        batches = list(pair_stream(path, TOKENIZER, image_size=32, batch_size=8))
    assert sum(len(batch.tokens) for batch in batches) == 20
    assert "cut" in caplog.text
    assert "missing caption (first: mute" in caplog.text


def test_sets_without_a_usable_sample_end_the_run(tmp_path):
    path = write_shard(tmp_path / "a.tar", [("a", {"png": b"", "txt": b"a"})])
    with pytest.raises(UserError, match="no usable sample"):
        train(settings_for(path), tmp_path / "run")


def test_parts_of_a_set_need_it_in_memory(folder):
    with pytest.raises(UserError, match="views chooses parts of a set in memory"):
        stream_data(settings_for(folder, reinforced=True, views=1))
