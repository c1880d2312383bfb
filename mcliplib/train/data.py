"""Training data, plain pairs or a reinforced set, in memory or as a stream: their texts, identity and batches."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mcliplib.data import Sample, load_samples, shard_paths
from mcliplib.data.registry import tars_in
from mcliplib.errors import UserError
from mcliplib.images import MAX_PIXELS
from mcliplib.reinforce.augment import PAPER, AugmentSettings
from mcliplib.reinforce.manifest import MANIFEST, MadeWith, check_shards, checked, made_with, read_finished
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.reinforce.sources import LIST_SUFFIXES, TarSource, find_sources
from mcliplib.reinforce.store import Store
from mcliplib.tokenizer import Tokenizer
from mcliplib.train.batches import Batch, PairBatches, ReinforcedBatch, ReinforcedBatches, Views, side_for
from mcliplib.train.settings import TrainSettings
from mcliplib.train.streaming import Stream, pair_recipe, reinforced_recipe

MakeBatch = Callable[[int], Batch | ReinforcedBatch]  # of a step
STREAM_ABOVE = 1 << 30  # bytes of shards
RELEASED_DIMS = (768, 768)  # of the public DataCompDR's two teachers, which has no manifest
log = logging.getLogger(__name__)


@runtime_checkable
class TrainingData(Protocol):
    """A set in memory."""

    def texts(self) -> Iterator[str]:
        """All texts that training may show, for the vocabulary."""

    def digest(self) -> str:
        """A hash of all but the pictures, in order: a run goes on only with the data that it began with."""

    def batches(self, settings: TrainSettings, tokenizer: Tokenizer, image_size: int) -> MakeBatch:
        """The sequence of batches of a run."""


def _of_pairs(settings: TrainSettings) -> dict[str, float]:
    """The settings of plain pairs' crops and captions, as `PairBatches` and `pair_recipe` name them."""
    return {name: getattr(settings, name) for name in ("min_crop", "mirror", "jitter", "keyword_captions")}


@dataclass(frozen=True)
class PairData:
    """Pictures with captions, and keywords where there are any."""

    samples: Sequence[Sample]
    teacher_dims: tuple[int, ...] = field(default=(), init=False)

    def texts(self) -> Iterator[str]:
        """See TrainingData."""
        return (text for one in self.samples for text in (one.caption, *one.meta.get("keywords", [])))

    def digest(self) -> str:
        """See TrainingData."""
        return _digest((one.key, one.caption, one.meta.get("keywords")) for one in self.samples)

    def batches(self, settings: TrainSettings, tokenizer: Tokenizer, image_size: int) -> PairBatches:
        """See TrainingData."""
        return PairBatches(
            self.samples,
            tokenizer,
            image_size=image_size,
            batch_size=settings.batch_size,
            seed=settings.seed,
            **_of_pairs(settings),
        )


@dataclass
class ReinforcedData:
    """A reinforced set.

    Attributes:
        samples: with images and captions.
        teacher_dims: dimensions of each teacher.
        augment: what the views were drawn from.
        max_pixels: of a picture that is decoded.
    """

    samples: Sequence[ReinforcedSample]
    teacher_dims: tuple[int, ...]
    augment: AugmentSettings = PAPER
    max_pixels: int = MAX_PIXELS
    # Not arguments, so that `dataclasses.replace` with other samples starts with views of its own.
    _whole: "ReinforcedData | None" = field(default=None, init=False, repr=False)  # what this is a `part` of
    _views: dict[int, Views] = field(default_factory=dict, init=False, repr=False)  # by image size

    def texts(self) -> Iterator[str]:
        """See TrainingData."""
        return (text for one in self.samples for text in (str(one.caption), *one.synthetic_captions))

    def digest(self) -> str:
        """See TrainingData; the teachers' answers belong to it."""
        said = ((one.key, one.caption, one.synthetic_captions, one.augmentations) for one in self.samples)
        answers = (rows.numpy().tobytes() for one in self.samples for rows in (one.image_emb, one.text_emb))
        return _digest(chain([self.teacher_dims], said, answers))

    def batches(self, settings: TrainSettings, tokenizer: Tokenizer, image_size: int) -> ReinforcedBatches:
        """See TrainingData."""
        whole = self._whole or self
        if image_size not in whole._views:
            whole._views[image_size] = Views(whole.samples, image_size, self.augment, max_pixels=self.max_pixels)
        return ReinforcedBatches(
            self.samples,
            tokenizer,
            image_size=image_size,
            batch_size=settings.batch_size,
            seed=settings.seed,
            views=whole._views[image_size],
        )

    def part_for(self, settings: TrainSettings) -> "ReinforcedData":
        """Return the `part` of the set that the settings of a run name."""
        return self.part(views=settings.views, captions=settings.captions, teachers=settings.teachers)

    def part(
        self, *, views: int | None = None, captions: int | None = None, teachers: Sequence[int] | None = None
    ) -> "ReinforcedData":
        """Return the same pictures with fewer views, captions or teachers, for ablations.

        Args:
            views: the first so many augmentations; all if None.
            captions: the first so many synthetic captions.
            teachers: which ones, by their place, in any order.

        Raises:
            UserError: more is asked for than there is.
        """
        first = self.samples[0]
        there = {"views": len(first.augmentations), "captions": len(first.synthetic_captions)}
        for name, wanted, least in (("views", views, 1), ("captions", captions, 0)):
            if wanted is not None and not least <= wanted <= there[name]:
                raise UserError(f"{name} must be from {least} to {there[name]}, which the set has, got {wanted}")
        known = range(len(self.teacher_dims))
        kept = tuple(known if teachers is None else teachers)
        if not kept or not set(kept) <= set(known) or len(set(kept)) < len(kept):
            raise UserError(
                f"teachers must be different places among the set's {len(known)}, counted from 0, got {list(kept)}"
            )

        def columns(rows: Tensor) -> Tensor:
            parts = rows.split(self.teacher_dims, dim=1)
            return torch.cat([parts[place] for place in kept], dim=1) if kept != tuple(known) else rows

        samples = [
            replace(
                one,
                augmentations=one.augmentations[:views],
                synthetic_captions=one.synthetic_captions[:captions],
                image_emb=columns(one.image_emb[:views]),
                text_emb=columns(one.text_emb[: None if captions is None else 1 + captions]),
            )
            for one in self.samples
        ]
        dims = tuple(self.teacher_dims[place] for place in kept)
        part = replace(self, samples=samples, teacher_dims=dims)
        part._whole = self._whole or self
        return part


@dataclass(frozen=True)
class StreamData:
    """Shards that are read while training goes on.

    Attributes:
        shards: their paths or URLs.
        teacher_dims: dimensions of each teacher; none of plain shards.
        augment: what a reinforced set's views were drawn from.
    """

    shards: tuple[str, ...]
    teacher_dims: tuple[int, ...] = ()
    augment: AugmentSettings = PAPER

    def digest(self) -> str:
        """A hash of the shards' names and, where they are at hand, sizes."""
        return _digest((name, Path(name).stat().st_size if Path(name).is_file() else -1) for name in self.shards)

    def stream(self, settings: TrainSettings, tokenizer: Tokenizer, image_size: int, rows: int, workers: int) -> Stream:
        """The batches of this process, from the beginning.

        Args:
            settings: training settings.
            tokenizer: of the model.
            image_size: pixels, height and width.
            rows: of a batch of this process.
            workers: processes that make them.
        """
        if self.teacher_dims:
            recipe = reinforced_recipe(
                tokenizer,
                image_size=image_size,
                settings=self.augment,
                teacher_dims=self.teacher_dims,
                max_pixels=settings.max_pixels,
            )
        else:
            recipe = pair_recipe(
                tokenizer, image_size=image_size, max_pixels=settings.max_pixels, **_of_pairs(settings)
            )
        return Stream(self.shards, recipe, rows, settings.seed, block=settings.shuffle, workers=workers)


def load_data(settings: TrainSettings, image_size: int) -> PairData | ReinforcedData | StreamData:
    """Read what the settings name, or prepare to stream it.

    Args:
        settings: training settings.
        image_size: of the model, in pixels; larger pictures of plain pairs are kept smaller.

    Raises:
        UserError: no such data, or no reinforced set where one is wanted.
    """
    for name in settings.data:
        _check_shards_there(name, settings.reinforced)
    if wants_stream(settings):
        return stream_data(settings)
    if not settings.reinforced:
        side = side_for(image_size, settings.min_crop)
        return PairData(load_samples(settings.data, max_pixels=settings.max_pixels, side=side))
    data = load_reinforced(settings.data)
    return replace(data.part_for(settings), max_pixels=settings.max_pixels)


def _check_shards_there(name: str, reinforced: bool) -> None:
    """Raises a UserError that says how to make a set, where the name is a folder of pictures or a list."""
    path = Path(name)
    if name.lower().endswith(LIST_SUFFIXES) or (path.is_dir() and not tars_in(path)):
        more = "" if reinforced else " --captions 0 --augmentations 1"
        raise UserError(
            f"{name}: training reads shards, not pictures; make them with `mcliplib reinforce --input {name} "
            f"--output SET{more}` and give --data SET"
        )


def wants_stream(settings: TrainSettings) -> bool:
    """Whether the data are streamed: as the settings say, else where they are elsewhere or large."""
    if settings.stream is not None:
        return settings.stream
    if any("://" in name for name in settings.data):
        return True
    size = sum(path.stat().st_size for name in settings.data for path in shard_paths(name) if path.is_file())
    return size > STREAM_ABOVE


def stream_data(settings: TrainSettings) -> StreamData:
    """The shards that the settings name, anywhere that fsspec reaches.

    Raises:
        UserError: a name stands for no shards, or the set's pictures are in other shards, or its parts are asked for.
    """
    sources = find_sources(settings.data, shard_size=1)
    shards = tuple(source.url for source in sources if isinstance(source, TarSource))
    if len(shards) < len(sources):
        raise UserError("only shards can be streamed; make them of a list with `mcliplib reinforce`")
    if not settings.reinforced:
        return StreamData(shards)
    for name in ("views", "captions", "teachers"):
        if getattr(settings, name) is not None:
            raise UserError(f"{name} chooses parts of a set in memory; a stream has them all (--no-stream)")
    for folder in {Path(shard).parent for shard in shards if (Path(shard).parent / MANIFEST).is_file()}:
        own = [Path(shard) for shard in shards if Path(shard).parent == folder]
        check_shards(folder, own, verify=settings.verify)
    ways = {_manifest_beside(folder) for folder in {shard.rpartition("/")[0] for shard in shards}}
    if len(ways) > 1:
        raise UserError("the sets were made with other teachers or augmentations than one another")
    return StreamData(shards, *ways.pop())


def _manifest_beside(folder: str) -> MadeWith:
    """How the shards of a folder or URL were made; without a manifest, as the public release was."""
    found = Store(folder or ".").read_json(MANIFEST, checked)
    if found is None:
        log.warning("%s: has no %s; taken for the public release, teachers %s", folder, MANIFEST, RELEASED_DIMS)
        return MadeWith(RELEASED_DIMS, PAPER)
    if found.get("images"):
        raise UserError(f"{folder}: its pictures are in other shards; such a set is trained in memory (--no-stream)")
    return made_with(found)


def load_reinforced(names: str | Iterable[str]) -> ReinforcedData:
    """Reinforced sets in memory; what they were made with is read from the manifests beside their shards.

    Args:
        names: folders of `mcliplib reinforce`, shards in them, or data sets. A shipped set without images names the
            sets that hold them in its card.

    Raises:
        UserError: there is no such set or no manifest beside it, or the sets were made differently.
    """
    shards = [path for name in ([names] if isinstance(names, str) else names) for path in shard_paths(name)]
    folders = list(dict.fromkeys(path.parent for path in shards))
    ways = {folder: made_with(read_finished(folder)) for folder in folders}
    first = ways[folders[0]]
    for folder, way in ways.items():
        if way != first:
            raise UserError(f"{folder}: was made with other teachers or augmentations than {folders[0]}")
    samples: list[ReinforcedSample] = []
    for folder in folders:
        own = [path for path in shards if path.parent == folder]
        check_shards(folder, own, verify=True)  # all bytes are read in any case
        images = image_shards(folder) or None
        samples += read_reinforced(own, images=images, settings=first.augment, teacher_dims=first.teacher_dims)
    return ReinforcedData(samples, first.teacher_dims, first.augment)


def image_shards(folder: Path) -> list[Path]:
    """The shards that hold the pictures of a reinforced set without images; none where it has its own.

    Raises:
        UserError: `folder` is no finished reinforced set, or the sets that its manifest names are not here.
    """
    return [path for name in read_finished(folder).get("images", []) for path in shard_paths(name)]


def _digest(parts: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return digest.hexdigest()
