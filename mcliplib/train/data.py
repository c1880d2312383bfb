"""Training data in memory, plain pairs or a reinforced set: their texts, their identity and their batches."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mcliplib.data import Sample, load_samples, shard_paths
from mcliplib.errors import UserError
from mcliplib.reinforce.augment import PAPER, AugmentSettings
from mcliplib.reinforce.manifest import made_with, read_finished
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.tokenizer import Tokenizer
from mcliplib.train.batches import Batch, PairBatches, ReinforcedBatch, ReinforcedBatches, Views
from mcliplib.train.settings import TrainSettings

MakeBatch = Callable[[int], Batch | ReinforcedBatch]  # of a step


@runtime_checkable
class TrainingData(Protocol):
    """A set in memory."""

    def texts(self) -> Iterator[str]:
        """All texts that training may show, for the vocabulary."""

    def digest(self) -> str:
        """A hash of all but the pictures, in order: a run goes on only with the data that it began with."""

    def batches(self, settings: TrainSettings, tokenizer: Tokenizer, image_size: int) -> MakeBatch:
        """The sequence of batches of a run."""


@dataclass(frozen=True)
class PairData:
    """Pictures with captions, and keywords where there are any."""

    samples: Sequence[Sample]

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
            min_crop=settings.min_crop,
            mirror=settings.mirror,
            jitter=settings.jitter,
            keyword_captions=settings.keyword_captions,
        )


@dataclass(frozen=True)
class ReinforcedData:
    """A reinforced set.

    Attributes:
        samples: with images and captions.
        teacher_dims: dimensions of each teacher.
        augment: what the views were drawn from.
    """

    samples: Sequence[ReinforcedSample]
    teacher_dims: tuple[int, ...]
    augment: AugmentSettings = PAPER
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
            whole._views[image_size] = Views(whole.samples, image_size, self.augment)
        return ReinforcedBatches(
            self.samples,
            tokenizer,
            image_size=image_size,
            batch_size=settings.batch_size,
            seed=settings.seed,
            views=whole._views[image_size],
        )

    def part_for(self, settings: TrainSettings) -> "ReinforcedData":
        """The `part` that a run asks for."""
        return self.part(views=settings.views, captions=settings.captions, teachers=settings.teachers)

    def part(
        self, *, views: int | None = None, captions: int | None = None, teachers: Sequence[int] | None = None
    ) -> "ReinforcedData":
        """The same pictures with less about them, for ablations.

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
        object.__setattr__(part, "_whole", self._whole or self)
        return part


def load_data(settings: TrainSettings) -> PairData | ReinforcedData:
    """Read what the settings name.

    Raises:
        UserError: no such data, or no reinforced set where one is wanted.
    """
    if not settings.reinforced:
        return PairData(load_samples(settings.data))
    return load_reinforced(settings.data).part_for(settings)


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
