"""Batches from shards of any size, anywhere that fsspec reaches; memory does not grow with the set.

Shards are shuffled and dealt out to the readers (processes of torchrun times loader processes of each). A reader takes
a block of samples at a time, shuffles it, and makes batches of it; so a batch has a position that can be written down,
and a run goes on at the very sample where it stopped.

For example::

    for batch in reinforced_stream(shards, tokenizer, image_size=96, batch_size=256, workers=2):
        ...  # one pass; give `epoch=1` for the next one's order
"""

import logging
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mcliplib.data import Sample
from mcliplib.data.reader import Paths, ReadReport, existing, words_of
from mcliplib.errors import UserError
from mcliplib.images import MAX_PIXELS, PictureError, read_picture
from mcliplib.reinforce.augment import PAPER, AugmentSettings
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.reinforce.sources import RawSample, TarSource, local_copy, usable
from mcliplib.tokenizer import Tokenizer
from mcliplib.train.batches import (
    Batch,
    ReinforcedBatch,
    as_pixels,
    caption_variants,
    crop_of,
    jitter_colours,
    picture_of,
    side_for,
    view_of,
)
from mcliplib.train.distributed import rank, world_size

Example = tuple[Any, ...]  # a picture, uint8 or float32, and what belongs to it
BLOCK_BYTES = 256 << 20  # of encoded pictures that a reader holds
_MOST_SKIPPED = 0.1  # of a shard's samples
_CURE = "make it with `mcliplib data build` or `mcliplib reinforce`"
log = logging.getLogger(__name__)


class Position(NamedTuple):
    """Where a reader stands: at the start of a pass, or so many samples into a block."""

    epoch: int = 0
    shard: int = 0  # of the reader's own, in the order of the pass, in which the block begins
    sample: int = 0  # of that shard
    taken: int = 0  # samples of the block that are used up


class Delivered(NamedTuple):
    """A batch, and where its reader stands after it."""

    batch: Any
    reader: int
    position: Position


@dataclass(frozen=True)
class Recipe:
    """How a shard's samples become batches; a function of the shard, the sample's key and the pass alone.

    Attributes:
        read: a shard's usable samples, in order, not decoded.
        make: a sample and its generator to an example.
        collate: examples to a batch.
    """

    read: Callable[[str], Iterable[Any]]
    make: Callable[[Any, np.random.Generator], Example]
    collate: Callable[[Sequence[Example]], Any]


@dataclass(frozen=True)
class Stream(IterableDataset):
    """Batches of this process, with their positions, for a DataLoader.

    Attributes:
        shards: all of them, in any order that is the same everywhere.
        recipe: from a shard to batches.
        rows: of a batch of this process.
        seed: of order, views and captions.
        epoch: of the first pass.
        passes: how many; None for no end. A last incomplete batch of a reader is given as it is.
        block: samples among which the next one is drawn; fewer where they exceed `BLOCK_BYTES`.
        workers: the loader's processes.
        start: where each reader goes on; those that are not named begin.
        turn: of which of this process's readers the first batch is.
        process: number of this one among torchrun's.
        processes: how many of them there are.
    """

    shards: tuple[str, ...]
    recipe: Recipe
    rows: int
    seed: int = 0
    epoch: int = 0
    passes: int | None = None
    block: int = 1000
    workers: int = 0
    start: Mapping[int, Position] = field(default_factory=dict)
    turn: int = 0
    process: int = field(default_factory=lambda: rank())  # now: a loader's process may not know of the others
    processes: int = field(default_factory=lambda: world_size())

    @property
    def readers(self) -> int:
        """Number of readers, of all processes together."""
        return self.processes * max(1, self.workers)

    def resumed(self, step: int, positions: Mapping[int, tuple[int, ...]]) -> "Stream":
        """Return this stream, continued at `step`; if the number of readers has changed, it begins a new pass instead.

        Args:
            step: the number of the next step.
            positions: reader -> its `Position`, as saved with the run; empty for a run that has none.
        """
        turn = step % max(1, self.workers)
        if set(positions) == set(range(self.readers)):
            start = {reader: Position(*position) for reader, position in positions.items()}
            return replace(self, start=start, turn=turn)
        epoch = max((position[0] + 1 for position in positions.values()), default=self.epoch)
        if positions:
            log.warning("%d readers were %d: the stream begins pass %d anew", self.readers, len(positions), epoch)
        return replace(self, epoch=epoch, turn=turn)

    def begun(self) -> dict[int, Position]:
        """Return the starting `Position` of each of this process's readers."""
        own = max(1, self.workers)
        readers = range(self.process * own, (self.process + 1) * own)
        return {reader: self.start.get(reader, Position(self.epoch)) for reader in readers}

    def loader(self) -> Iterable[Delivered]:
        """The batches in the order of this process's readers, one of each in turn."""
        return DataLoader(self, batch_size=None, num_workers=self.workers)

    def __iter__(self) -> Iterator[Delivered]:
        own, info = max(1, self.workers), get_worker_info()
        reader = self.process * own + ((0 if info is None else info.id) + self.turn) % own
        rows: list[Example] = []
        after = self.start.get(reader, Position(self.epoch))
        for begin, samples in self._blocks(reader, after):
            order = np.random.default_rng([self.seed, reader, *begin[:3]]).permutation(len(samples))
            taken = after.taken if begin[:3] == after[:3] else 0
            for place, number in enumerate(order[taken:].tolist(), start=taken + 1):
                example = self._made(samples[number], begin.epoch)
                if example is not None:
                    rows.append(example)
                if len(rows) == self.rows:
                    yield Delivered(self.recipe.collate(rows), reader, begin._replace(taken=place))
                    rows = []
        if rows:
            yield Delivered(self.recipe.collate(rows), reader, Position(self.epoch + (self.passes or 0)))

    def _made(self, sample: Any, epoch: int) -> Example | None:
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(sample.key.encode())])
        try:
            return self.recipe.make(sample, rng)
        except PictureError as error:
            log.warning("left out: %s: %s", sample.key, error)
            return None

    def _blocks(self, reader: int, start: Position) -> Iterator[tuple[Position, list[Any]]]:
        """Where each block begins, and its samples; a block ends with its pass, so that none holds a sample twice."""
        passes = count(start.epoch) if self.passes is None else range(start.epoch, self.epoch + self.passes)
        for epoch in passes:
            first = start if epoch == start.epoch else Position(epoch)
            samples: list[Any] = []
            begin, size, met = first, 0, 0
            for shard, place, sample in self._samples(reader, first):
                if samples and (len(samples) == self.block or size + len(sample.image or b"") > BLOCK_BYTES):
                    yield begin, samples
                    samples, size = [], 0
                if not samples:
                    begin = Position(epoch, shard, place)
                samples.append(sample)
                size, met = size + len(sample.image or b""), met + 1
            if samples:
                yield begin, samples
            if not met and first == Position(epoch) and self.passes is None:
                raise UserError(
                    f"reader {reader} of {self.readers} finds no usable sample in {len(self.shards)} shards"
                )

    def _samples(self, reader: int, first: Position) -> Iterator[tuple[int, int, Any]]:
        """The reader's samples of a pass with their places, from a position on."""
        order = random.Random(f"{self.seed}/{first.epoch}").sample(self.shards, len(self.shards))
        shared = len(order) < self.readers  # too few to go round: all read all, and each takes its share of samples
        own = order if shared else order[reader :: self.readers]
        for shard in range(first.shard, len(own)):
            skip = first.sample if shard == first.shard else 0
            for place, sample in islice(enumerate(self.recipe.read(own[shard])), skip, None):
                if not shared or place % self.readers == reader:
                    yield shard, place, sample


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
) -> Iterator[Batch]:
    """One pass over plain shards: a random crop of each picture and its caption; arguments as `reinforced_stream`."""
    recipe = pair_recipe(tokenizer, image_size=image_size, min_crop=min_crop)
    return _one_pass(existing(shards, cure=_CURE), recipe, batch_size, seed, epoch, workers, buffer)


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
) -> Iterator[ReinforcedBatch]:
    """One pass over reinforced shards: of each sample a random stored view, the real and a random synthetic caption.

    No sample is left out: the last batch of each worker may be smaller. Under torchrun, each process reads its share.

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
    recipe = reinforced_recipe(
        tokenizer,
        image_size=image_size,
        settings=settings,
        teacher_dims=teacher_dims,
        images=_pictures_of(names, images),
    )
    return _one_pass(names, recipe, batch_size, seed, epoch, workers, buffer)


def pair_recipe(
    tokenizer: Tokenizer,
    *,
    image_size: int,
    min_crop: float = 0.5,
    mirror: float = 0.0,
    jitter: float = 0.0,
    keyword_captions: float = 0.0,
    max_pixels: int = MAX_PIXELS,
) -> Recipe:
    """For plain shards; arguments as `mcliplib.train.batches.PairBatches`."""
    make = partial(
        _pair,
        tokenizer=tokenizer,
        image_size=image_size,
        min_crop=min_crop,
        mirror=mirror,
        jitter=jitter,
        keyword_captions=keyword_captions,
        max_pixels=max_pixels,
    )
    return Recipe(_read_pairs, make, _pairs)


def reinforced_recipe(
    tokenizer: Tokenizer,
    *,
    image_size: int,
    settings: AugmentSettings = PAPER,
    teacher_dims: Sequence[int] | None = None,
    images: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Recipe:
    """For reinforced shards; arguments as `reinforced_stream`, `images` the shard of pictures of each."""
    read = partial(_read_reinforced, pictures=images or {}, settings=settings, teacher_dims=teacher_dims)
    make = partial(_reinforced, tokenizer=tokenizer, image_size=image_size, settings=settings, max_pixels=max_pixels)
    return Recipe(read, make, _reinforced_batch)


def _one_pass(
    shards: Sequence[str], recipe: Recipe, batch_size: int, seed: int, epoch: int, workers: int, buffer: int
) -> Iterator[Any]:
    stream = Stream(tuple(shards), recipe, batch_size, seed, epoch, passes=1, block=buffer, workers=workers)
    return (delivered.batch for delivered in stream.loader())


def _pictures_of(names: Sequence[str], images: Paths | None) -> dict[str, str]:
    """The shard with the images of each reinforced one."""
    if images is None:
        return {}
    found = existing(images, cure=_CURE)
    if len(found) != len(names):
        raise UserError(f"{len(names)} reinforced shards need as many shards of images, in order; got {len(found)}")
    return dict(zip(names, found, strict=True))


def _read_pairs(shard: str) -> Iterator[RawSample]:
    report = ReadReport(cure="Repair the shard")
    yield from usable(TarSource(shard), report, _MOST_SKIPPED)
    _log_skipped(report)


def _read_reinforced(
    shard: str, pictures: Mapping[str, str], settings: AugmentSettings, teacher_dims: Sequence[int] | None
) -> Iterator[ReinforcedSample]:
    report = ReadReport(cure="Repair the shard")
    with local_copy(shard) as path:
        yield from read_reinforced(
            path, images=pictures.get(shard), settings=settings, teacher_dims=teacher_dims, report=report
        )
    _log_skipped(report)


def _log_skipped(report: ReadReport) -> None:
    if report.skipped or report.broken_shards:
        log.warning("left out: %s", report)


def _pair(
    sample: RawSample,
    rng: np.random.Generator,
    tokenizer: Tokenizer,
    image_size: int,
    min_crop: float,
    mirror: float,
    jitter: float,
    keyword_captions: float,
    max_pixels: int,
) -> Example:
    image = read_picture(sample.image, max_pixels=max_pixels, enough=side_for(image_size, min_crop)).image
    crop = crop_of(image, image_size, rng, min_crop)
    pixels = as_pixels((crop[:, ::-1] if rng.random() < mirror else crop)[None].copy())
    meta = {"keywords": words_of(sample.meta.get("keywords", []))}
    caption, *others = caption_variants(Sample(sample.key, image, sample.caption, meta), rng)
    if others and rng.random() < keyword_captions:
        caption = others[rng.integers(len(others))]
    return jitter_colours(pixels, rng, jitter)[0], tokenizer(caption)[0]


def _pairs(examples: Sequence[Example]) -> Batch:
    crops, tokens = zip(*examples, strict=True)
    return Batch(torch.stack(crops).contiguous(memory_format=torch.channels_last), torch.stack(tokens))


def _reinforced(
    sample: ReinforcedSample,
    rng: np.random.Generator,
    tokenizer: Tokenizer,
    image_size: int,
    settings: AugmentSettings,
    max_pixels: int,
) -> Example:
    view = int(rng.integers(len(sample.augmentations)))
    pixels = view_of(sample, view, image_size, settings, picture_of(sample, max_pixels))
    real = pixels, tokenizer(str(sample.caption))[0], sample.image_emb[view], sample.text_emb[0]
    if not sample.synthetic_captions:
        return real
    said = int(rng.integers(len(sample.synthetic_captions)))
    return *real, tokenizer(sample.synthetic_captions[said])[0], sample.text_emb[1 + said]


def _reinforced_batch(examples: Sequence[Example]) -> ReinforcedBatch:
    views, *rest = zip(*examples, strict=True)
    return ReinforcedBatch(as_pixels(np.stack(views)), *(torch.stack(column) for column in rest))
