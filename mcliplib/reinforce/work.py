"""The first pass over the input, and the work on one shard: decode, augment, ask the models in batches, write.

The survey finds what is there, what is a fault or a duplicate, and the SHA-256 of it all. It makes every shard's work
independent of the others: which of two equal samples stays is known before any starts.

Batches are consecutive samples of the shard, so that the floats do not depend on how many threads there are or on which
shards were done before.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from mcliplib.data.reader import Skip
from mcliplib.errors import UserError
from mcliplib.images import PictureError, read_picture, shrunk
from mcliplib.reinforce import augment
from mcliplib.reinforce.augment import Augmentation
from mcliplib.reinforce.sample import ReinforcedSample, to_members
from mcliplib.reinforce.settings import Captioner, ReinforceSettings, Teacher
from mcliplib.reinforce.sources import RawSample, Source
from mcliplib.reinforce.store import Store, Written, generator_of
from mcliplib.threads import using_threads


@dataclass(frozen=True)
class Task:
    """The work on one source.

    Attributes:
        index: of the output shard.
        source: where its samples are.
        count: samples there, faulty ones too.
        skips: position of each sample that is left out unseen -> its key and the reason.
        sha256: SHA-256 of all samples of the source, in hexadecimal.
        broken: why the source ends too early; empty where it does not.
    """

    index: int
    source: Source
    count: int
    skips: dict[int, Skip]
    sha256: str
    broken: str = ""

    @property
    def file(self) -> str:
        """Name of the output shard."""
        return f"shard-{self.index:06d}.tar"


def survey(sources: Sequence[Source], advance: Callable[[int], object] = lambda count: None) -> list[Task]:
    """Read the input once; a task for each source.

    A sample is left out as `duplicate key` or `duplicate sample` (the same image bytes and caption) if an earlier one
    without a fault of reading has taken its place, even where that one's image proves corrupt later on. This takes
    about 200 bytes of memory a sample.

    Args:
        sources: in the order of the output.
        advance: called with a number of samples read, now and then.

    Raises:
        UserError: a source cannot be read, or there are no samples at all.
    """
    keys: set[str] = set()
    contents: set[bytes] = set()
    tasks = []
    for index, source in enumerate(sources):
        skips: dict[int, Skip] = {}
        broken: dict[str, str] = {}
        digest = hashlib.sha256()
        count = 0
        for position, sample in enumerate(source.read(broken)):
            image = hashlib.sha256(sample.image).digest()
            digest.update(_description(sample, image))
            if reason := sample.fault or _repeated(sample, image, keys, contents):
                skips[position] = Skip(source.name, sample.key, reason)
            count += 1
            advance(1)
        tasks.append(Task(index, source, count, skips, digest.hexdigest(), broken.get(source.name, "")))
    if not any(task.count for task in tasks):
        raise UserError("the input holds no samples")
    return tasks


def _repeated(sample: RawSample, image: bytes, keys: set[str], contents: set[bytes]) -> str:
    """Return why the sample is a duplicate; "" for a new one, which is then noted in `keys` and `contents`."""
    content = hashlib.sha256(image + sample.caption.encode(errors="replace")).digest()[:16]
    if sample.key in keys:
        return "duplicate key"
    if content in contents:
        return "duplicate sample"
    keys.add(sample.key)
    contents.add(content)
    return ""


def _description(sample: RawSample, image: bytes) -> bytes:
    """All that the output depends on, in an unambiguous form."""
    parts = [sample.key, image.hex(), sample.image_extension, sample.caption, sample.url, sample.uid, sample.fault]
    return json.dumps([*parts, sample.meta], sort_keys=True, default=str).encode() + b"\n"


STAGES = ("wait", "captioner", "teachers", "write")


_CAPTIONED_SIDE = 1024  # pixels; no captioner looks at more, and groups of photographs would fill the memory
_AHEAD = 2  # groups of samples that are augmented while the teachers look at one


class Prepared(NamedTuple):
    """A sample, decoded, and its views at each size that a teacher wants."""

    raw: RawSample
    image: Image.Image
    augmentations: tuple[Augmentation, ...]
    views: dict[int, Tensor]  # side in pixels -> [N, 3, side, side] in [0, 1]


class ShardDone(NamedTuple):
    """The result of one source.

    `seconds` are the main thread's: `wait` for decoding and augmenting, then `captioner`, `teachers` and `write`.
    """

    written: Written
    samples: int
    skipped: list[Skip]
    seconds: dict[str, float]


@dataclass(frozen=True)
class ShardWorker:
    """All that the work on any shard needs.

    Attributes:
        teachers: asked in this order.
        captioner: None for no synthetic captions.
        settings: of the run.
        workers: threads that decode and augment. The result does not depend on it.
    """

    teachers: Sequence[Teacher]
    captioner: Captioner | None
    settings: ReinforceSettings
    workers: int = 1

    def run(self, task: Task, store: Store, advance: Callable[[int], object] = lambda count: None) -> ShardDone:
        """Reinforce one source and write its shard, whole or not at all.

        Args:
            task: the source, and what of it is left out.
            store: where the shard goes.
            advance: called with a number of samples that are done with, now and then.

        Raises:
            UserError: the source is not what the survey saw, or a teacher or the captioner breaks its promises.
        """
        progress = _Progress(advance)
        with (
            ThreadPoolExecutor(self.workers) as pool,
            using_threads(self.settings.threads),
            torch.inference_mode(),
            torch.autocast(self._device, torch.bfloat16, enabled=self.settings.compute == "bfloat16"),
        ):
            samples = self._samples(task, pool, progress)
            try:
                written = store.write_shard(task.file, samples)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        progress.lap("write")
        return ShardDone(written, progress.samples, progress.skipped, progress.seconds)

    @property
    def _device(self) -> str:
        return next((one.device.type for one in self.teachers if hasattr(one, "device")), "cpu")

    def to(self, device: str) -> None:
        """Move the models that can be moved."""
        for model in (*self.teachers, self.captioner):
            move = getattr(model, "to", None)
            if move is not None:
                move(device)

    def _samples(
        self, task: Task, pool: ThreadPoolExecutor, progress: "_Progress"
    ) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Key and members of each sample of the output."""
        dims = [teacher.dim for teacher in self.teachers]
        for group in self._prepared(task, pool, progress):
            progress.lap("wait")
            captions = self._captions(group)
            progress.lap("captioner")
            image_emb = self._image_embeddings(group)
            texts = [[one.raw.caption, *made] for one, made in zip(group, captions, strict=True)]
            text_emb = self._text_embeddings(texts)
            progress.lap("teachers")
            for one, made, images, words in zip(group, captions, image_emb, text_emb, strict=True):
                sample = _reinforced(one, made, images, words)
                yield sample.key, to_members(sample, self.settings.dtype, self.settings.augment, dims)
            progress.done(len(group))
            progress.lap("write")

    def _prepared(self, task: Task, pool: ThreadPoolExecutor, progress: "_Progress") -> Iterator[list[Prepared]]:
        """Groups of decoded samples, in order; the next ones are under way meanwhile."""
        size = max(1, self.settings.batch_size // self.settings.augmentations)
        waiting: deque[list[Future[Prepared | Skip]]] = deque([[]])
        for raw in _usable(task, progress):
            if len(waiting[-1]) == size:
                if len(waiting) > _AHEAD:
                    yield from _collected(waiting.popleft(), progress)
                waiting.append([])
            waiting[-1].append(pool.submit(self._prepare, task.source.name, raw))
        for futures in waiting:
            yield from _collected(futures, progress)

    def _prepare(self, source: str, raw: RawSample) -> Prepared | Skip:
        settings = self.settings
        try:
            picture = read_picture(raw.image, max_pixels=settings.max_pixels)
        except PictureError as error:
            return Skip(source, raw.key, error.reason)
        generator = generator_of("views", settings.seed, raw.key)
        drawn = tuple(augment.sample(picture.size, generator, settings.augment) for _ in range(settings.augmentations))
        sides = sorted({teacher.image_size for teacher in self.teachers})
        views = {
            side: torch.stack(
                [
                    augment.apply(picture.image, one, side, settings.augment, key=raw.key, original=picture.size)
                    for one in drawn
                ]
            )
            for side in sides
        }
        return Prepared(raw, shrunk(picture.image, _CAPTIONED_SIDE), drawn, views)

    def _captions(self, group: Sequence[Prepared]) -> list[list[str]]:
        count = self.settings.captions
        if self.captioner is None or count == 0:
            return [[] for _ in group]
        keys = [one.raw.key for one in group]
        made = self.captioner.caption([one.image for one in group], keys, count, self.settings.seed)
        if len(made) != len(group) or any(len(captions) != count for captions in made):
            raise UserError(f"captioner {self.captioner.name}: did not make {count} captions for each of {keys}")
        return made

    def _image_embeddings(self, group: Sequence[Prepared]) -> list[Tensor]:
        """[N, D] for each sample."""
        columns = []
        for teacher in self.teachers:
            pixels = torch.cat([one.views[teacher.image_size] for one in group])
            rows = [teacher.encode_pixels(part) for part in pixels.split(self.settings.batch_size)]
            columns.append(_checked(teacher, rows, len(pixels)))
        return list(torch.cat(columns, dim=1).split(self.settings.augmentations))

    def _text_embeddings(self, texts: Sequence[Sequence[str]]) -> list[Tensor]:
        """[1 + M, D] for each sample."""
        flat = [text for one in texts for text in one]
        size = self.settings.batch_size
        columns = []
        for teacher in self.teachers:
            rows = [teacher.encode_texts(flat[start : start + size]) for start in range(0, len(flat), size)]
            columns.append(_checked(teacher, rows, len(flat)))
        return list(torch.cat(columns, dim=1).split([len(one) for one in texts]))


@dataclass
class _Progress:
    """The result of a shard so far."""

    advance: Callable[[int], object]
    samples: int = 0
    skipped: list[Skip] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    last: float = field(default_factory=time.perf_counter)

    def done(self, count: int) -> None:
        self.samples += count
        self.advance(count)

    def skip(self, skip: Skip) -> None:
        self.skipped.append(skip)
        self.advance(1)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] += now - self.last
        self.last = now


def _usable(task: Task, progress: _Progress) -> Iterator[RawSample]:
    """The samples that the survey let pass; the others are noted.

    Raises:
        UserError: the source holds other samples than it did at the survey.
    """
    count = 0
    for position, raw in enumerate(task.source.read({})):
        count += 1
        if skip := task.skips.get(position):
            progress.skip(skip)
        elif raw.fault:  # a picture that is gone, or a server that fails, since the survey
            progress.skip(Skip(task.source.name, raw.key, raw.fault))
        else:
            yield raw
    if count != task.count:
        raise UserError(f"{task.source.name}: has changed during the run, {task.count} samples became {count}")


def _collected(futures: Sequence[Future[Prepared | Skip]], progress: _Progress) -> Iterator[list[Prepared]]:
    """One group, or none if all its samples are faulty."""
    results = [future.result() for future in futures]
    for result in results:
        if isinstance(result, Skip):
            progress.skip(result)
    if group := [result for result in results if isinstance(result, Prepared)]:
        yield group


def _checked(teacher: Teacher, rows: Sequence[Tensor], count: int) -> Tensor:
    """[count, dim] float32 on the CPU."""
    embeddings = torch.cat([part.cpu().float() for part in rows])
    if embeddings.shape != (count, teacher.dim):
        raise UserError(
            f"teacher {teacher.name}: gave {list(embeddings.shape)} for {count} inputs, promised {teacher.dim} columns"
        )
    return embeddings


def _reinforced(one: Prepared, captions: Sequence[str], image_emb: Tensor, text_emb: Tensor) -> ReinforcedSample:
    raw = one.raw
    return ReinforcedSample(
        key=raw.key,
        augmentations=one.augmentations,
        synthetic_captions=tuple(captions),
        image_emb=image_emb,
        text_emb=text_emb,
        caption=raw.caption,
        url=raw.url,
        uid=raw.uid,
        image=raw.image,
        image_extension=raw.image_extension,
        upright=True,
        meta=raw.meta,
    )
