"""Batches from shards of any size, with webdataset.

Shards are shuffled and shared out, samples are shuffled in a buffer, and a batch is put together from them.

For example::

    for batch in reinforced_stream(shards, tokenizer, image_size=96, batch_size=256, workers=2):
        ...  # one pass; give `epoch=1` for the next one's order
"""

import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch.utils.data import DataLoader

from mcliplib.data import Sample, read_shards
from mcliplib.data.reader import Paths, existing
from mcliplib.errors import UserError
from mcliplib.reinforce.augment import PAPER, AugmentSettings
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.tokenizer import Tokenizer
from mcliplib.train.batches import Batch, ReinforcedBatch, as_pixels, crop_of, view_of

Read = Callable[[str], Iterable[Any]]  # shard -> samples
Example = tuple[Any, ...]


def pair_stream(
    shards: Paths,
    tokenizer: Tokenizer,
    *,
    image_size: int,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    buffer: int = 1000,
    min_crop: float = 0.5,
) -> Iterable[Batch]:
    """One pass over plain shards: a random crop of each picture and its caption; arguments as `reinforced_stream`."""
    make = partial(_pair, tokenizer=tokenizer, image_size=image_size, min_crop=min_crop, seed=seed, epoch=epoch)
    return _stream(existing(shards, cure=_CURE), read_shards, make, _pairs, batch_size, seed, epoch, workers, buffer)


def reinforced_stream(
    shards: Paths,
    tokenizer: Tokenizer,
    *,
    image_size: int,
    batch_size: int,
    images: Paths | None = None,
    settings: AugmentSettings = PAPER,
    teacher_dims: Sequence[int] | None = None,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    buffer: int = 1000,
) -> Iterable[ReinforcedBatch]:
    """One pass over reinforced shards: of each sample a random stored view, the real and a random synthetic caption.

    A last incomplete batch is dropped. Under torchrun, each process reads its share of the shards.

    Args:
        shards: reinforced ones, ours or the public release's.
        tokenizer: of the model that will be trained.
        image_size: pixels, height and width.
        batch_size: pairs in a batch.
        images: where the reinforced shards have no images, the shard with those of each of them, in the same order.
        settings: those the augmentations were drawn with.
        teacher_dims: size of each teacher's embedding, for a stronger check.
        seed: of order, views and captions.
        epoch: of the pass; another one gives another order, other views and captions.
        workers: processes that decode and augment; 0 does it here.
        buffer: samples among which the next one is drawn.

    Raises:
        UserError: a shard does not exist or has none of images, or samples are damaged (while reading).
    """
    names = existing(shards, cure=_CURE)
    pictures = _pictures_of(names, images)
    read = partial(_read, pictures=pictures, settings=settings, teacher_dims=teacher_dims)
    make = partial(_reinforced, tokenizer=tokenizer, image_size=image_size, settings=settings, seed=seed, epoch=epoch)
    return _stream(names, read, make, _reinforced_batch, batch_size, seed, epoch, workers, buffer)


def _pictures_of(names: Sequence[str], images: Paths | None) -> dict[str, str]:
    """The shard with the images of each reinforced one."""
    if images is None:
        return {}
    found = existing(images, cure=_CURE)
    if len(found) != len(names):
        raise UserError(f"{len(names)} reinforced shards need as many shards of images, in order; got {len(found)}")
    return dict(zip(names, found, strict=True))


_BURST = 64  # samples, without decoded pictures
_CURE = "make it with `mcliplib data build` or `mcliplib reinforce`"


def _stream(
    shards: Sequence[str],
    read: Read,
    make: Callable[[Any], Example],
    collate: Callable[[Sequence[Example]], Any],
    batch_size: int,
    seed: int,
    epoch: int,
    workers: int,
    buffer: int,
) -> Iterable[Any]:
    order = random.Random(f"{seed}/{epoch}")
    pipeline = wds.DataPipeline(
        wds.SimpleShardList(order.sample(list(shards), len(shards))),
        wds.split_by_node,
        wds.split_by_worker,
        partial(_samples, read=read),
        wds.shuffle(buffer, initial=buffer, rng=order),
        wds.map(make),
        wds.batched(batch_size, collation_fn=collate, partial=False),
    )
    return DataLoader(pipeline, batch_size=None, num_workers=workers)


def _samples(urls: Iterable[Mapping[str, str]], read: Read) -> Iterator[Any]:
    for url in urls:
        yield from read(url["url"])


def _read(
    shard: str, pictures: Mapping[str, str], settings: AugmentSettings, teacher_dims: Sequence[int] | None
) -> Iterator[ReinforcedSample]:
    samples = read_reinforced(shard, images=pictures.get(shard), settings=settings, teacher_dims=teacher_dims)
    # Many at a time: a picture decoded between two samples would push what reads them out of the processor's caches.
    while burst := list(islice(samples, _BURST)):
        yield from burst


def _generator(key: str, seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, zlib.crc32(key.encode())])


def _pair(sample: Sample, tokenizer: Tokenizer, image_size: int, min_crop: float, seed: int, epoch: int) -> Example:
    crop = crop_of(sample.image, image_size, _generator(sample.key, seed, epoch), min_crop)
    return crop, tokenizer(sample.caption)[0]


def _pairs(examples: Sequence[Example]) -> Batch:
    crops, tokens = zip(*examples, strict=True)
    return Batch(as_pixels(np.stack(crops)), torch.stack(tokens))


def _reinforced(
    sample: ReinforcedSample, tokenizer: Tokenizer, image_size: int, settings: AugmentSettings, seed: int, epoch: int
) -> Example:
    rng = _generator(sample.key, seed, epoch)
    view = int(rng.integers(len(sample.augmentations)))
    real = view_of(sample, view, image_size, settings), tokenizer(str(sample.caption))[0], sample.image_emb[view]
    if not sample.synthetic_captions:
        return *real, sample.text_emb[0]
    said = int(rng.integers(len(sample.synthetic_captions)))
    return *real, sample.text_emb[0], tokenizer(sample.synthetic_captions[said])[0], sample.text_emb[1 + said]


def _reinforced_batch(examples: Sequence[Example]) -> ReinforcedBatch:
    views, *rest = zip(*examples, strict=True)
    return ReinforcedBatch(as_pixels(np.stack(views)), *(torch.stack(column) for column in rest))
