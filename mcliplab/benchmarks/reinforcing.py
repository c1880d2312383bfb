"""The cost of each part of dataset reinforcement on this machine, in one thread, to plan a run before it begins.

The parts take turns, each on the next few of some real pictures, so that a slow second slows all of them. Counted are
the processor's milliseconds, which other programs on the machine hardly change.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mcliplab.benchmarks.pictures import web_jpeg
from mcliplab.benchmarks.storage import DTYPES, Fidelity, example_sample, fidelity
from mcliplab.pairs import encoded_pairs
from mcliplib.data import decode_image
from mcliplib.data.reader import Members, image_extension
from mcliplib.data.shards import write_shard
from mcliplib.errors import UserError
from mcliplib.latency.timing import Spread, measure, spread
from mcliplib.reinforce import augment
from mcliplib.reinforce.sample import EmbeddingDType, to_members
from mcliplib.reinforce.settings import Captioner, Teacher
from mcliplib.reinforce.store import generator_of
from mcliplib.threads import using_threads

WEB_SIDE = 512  # pixels: web pictures are usually stored with no longer side than this
_PAPER_SHAPE = (10, 5)  # views and captions of a written sample


@dataclass(frozen=True)
class ReinforcingSettings:
    """How much is measured.

    Attributes:
        pictures: of the data; each part goes through them again and again.
        batch: pictures, views or texts in one call of a part.
        sides: pixels of the views, beside what the teachers want.
        captions: for one picture, in one call of the captioner.
        views: of each picture, for the fidelity.
        rounds: calls of each part that are counted.
    """

    pictures: int = 128
    batch: int = 16
    sides: tuple[int, ...] = (224,)
    captions: int = 5
    views: int = 4
    rounds: int = 15


@dataclass(frozen=True)
class Picture:
    """A picture as it is stored, and its caption."""

    key: str
    stored: bytes
    caption: str


@dataclass(frozen=True)
class Part:
    """One part of the work: a call does it `count` times."""

    call: Callable[[], object]
    count: int


def pictures(shards: Iterable[Path], count: int) -> list[Picture]:
    """So many pictures, evenly spread over the shards.

    Raises:
        UserError: there are fewer.
    """
    found = [_picture(*pair) for pair in encoded_pairs(shards)]
    if len(found) < count:
        raise UserError(f"the data hold {len(found)} pictures, fewer than the {count} wanted")
    return [found[place * len(found) // count] for place in range(count)]


def measure_parts(
    chosen: Sequence[Picture],
    teachers: Sequence[Teacher],
    captioner: Captioner | None,
    settings: ReinforcingSettings,
    folder: Path,
) -> dict[str, Spread]:
    """The processor's milliseconds of each part, for one picture, view, text, caption or written sample.

    Args:
        chosen: real pictures.
        teachers: asked one by one.
        captioner: left out if None.
        settings: of the benchmark.
        folder: what is written goes there.

    Returns:
        `decode`, `augment_SIDE`, the same for pictures of web size (`web_decode`, `web_augment_SIDE`), `view_TEACHER`,
        `text_TEACHER`, `caption_CAPTIONER`, `write_DTYPE`.
    """
    parts = _parts(chosen, teachers, captioner, settings, folder)
    calls = {name: part.call for name, part in parts.items()}
    timed = measure(calls, rounds=settings.rounds, warmup=1, threads=1, clock=time.process_time)
    return {
        name: spread([milliseconds / part.count for milliseconds in timed.samples[name]])
        for name, part in parts.items()
    }


def real_fidelity(
    chosen: Sequence[Picture], teachers: Sequence[Teacher], settings: ReinforcingSettings
) -> dict[str, Fidelity]:
    """`fidelity` of real embeddings: each picture's views against all their captions.

    Raises:
        UserError: fewer than two teachers, which are the yardstick.
    """
    if len(teachers) < 2:
        raise UserError("two teachers are needed: what they disagree about is the yardstick")
    images = [decode_image(one.stored) for one in chosen]
    with using_threads(1), torch.inference_mode():
        views, captions = [], []
        for teacher in teachers:
            pixels = _views(images, [one.key for one in chosen], teacher.image_size, settings.views)
            views.append(torch.cat([teacher.encode_pixels(part) for part in pixels.split(64)]))
            captions.append(teacher.encode_texts([one.caption for one in chosen]))
    return fidelity(torch.cat(views, dim=1), torch.cat(captions, dim=1), [teacher.dim for teacher in teachers])


def about(chosen: Sequence[Picture]) -> dict[str, Any]:
    """How large the pictures are, as they come and at web size: means of bytes, and of pixels."""
    sizes = {"stored": [one.stored for one in chosen], "web": [web_jpeg(one.stored, WEB_SIDE) for one in chosen]}
    return {
        name: {
            "bytes": sum(map(len, encoded)) / len(encoded),
            "pixels": sum(image.width * image.height for image in map(decode_image, encoded)) / len(encoded),
        }
        for name, encoded in sizes.items()
    }


def _parts(
    chosen: Sequence[Picture],
    teachers: Sequence[Teacher],
    captioner: Captioner | None,
    settings: ReinforcingSettings,
    folder: Path,
) -> dict[str, Part]:
    batch = settings.batch
    sides = sorted({*settings.sides, *(teacher.image_size for teacher in teachers)})
    images = [decode_image(one.stored) for one in chosen]
    keys, texts = [one.key for one in chosen], [one.caption for one in chosen]
    parts = _picture_parts([one.stored for one in chosen], keys, sides, batch, "")
    parts |= _picture_parts([web_jpeg(one.stored, WEB_SIDE) for one in chosen], keys, sides, batch, "web_")
    for teacher in teachers:
        pixels = _views(images, keys, teacher.image_size, 1)
        parts[f"view_{teacher.name}"] = Part(_each(teacher.encode_pixels, pixels, batch), batch)
        parts[f"text_{teacher.name}"] = Part(_each(teacher.encode_texts, texts, batch), batch)
    if captioner is not None:
        parts[f"caption_{captioner.name}"] = Part(_captioning(captioner, images, keys, settings), settings.captions)
    for dtype in DTYPES:
        parts[f"write_{dtype}"] = Part(_writing(dtype, batch, folder), batch)
    return parts


def _picture_parts(
    encoded: Sequence[bytes], keys: Sequence[str], sides: Sequence[int], batch: int, prefix: str
) -> dict[str, Part]:
    decoded = [decode_image(one) for one in encoded]
    drawn = [
        augment.sample(image.size, generator_of("views", 0, key)) for image, key in zip(decoded, keys, strict=True)
    ]
    pairs = list(zip(decoded, drawn, strict=True))

    def decode(some: Sequence[bytes]) -> list[Image.Image]:
        return [decode_image(one) for one in some]

    def augmenting(side: int) -> Callable[[Sequence[Any]], Tensor]:
        return lambda some: torch.stack([augment.apply(image, params, side) for image, params in some])

    parts = {f"{prefix}decode": Part(_each(decode, encoded, batch), batch)}
    for side in sides:
        parts[f"{prefix}augment_{side}"] = Part(_each(augmenting(side), pairs, batch), batch)
    return parts


def _captioning(
    captioner: Captioner, images: Sequence[Image.Image], keys: Sequence[str], settings: ReinforcingSettings
) -> Callable[[], object]:
    places = itertools.cycle(range(len(images)))

    def call() -> object:
        place = next(places)
        return captioner.caption([images[place]], [keys[place]], settings.captions, 0)

    return call


def _writing(dtype: EmbeddingDType, batch: int, folder: Path) -> Callable[[], object]:
    sample = example_sample(*_PAPER_SHAPE)

    def call() -> object:
        rows: list[tuple[str, Mapping[str, bytes]]] = [
            (f"{place:032}", to_members(sample, dtype, teacher_dims=(768, 768))) for place in range(batch)
        ]
        return write_shard(folder / f"{dtype}.tar", rows)

    return call


def _each(work: Callable[[Any], object], items: Any, batch: int) -> Callable[[], object]:
    """A call does `work` on the next `batch` of the items; after the last come the first again."""
    starts = itertools.cycle(range(0, len(items) - batch + 1, batch))

    def call() -> object:
        with torch.inference_mode():
            start = next(starts)
            return work(items[start : start + batch])

    return call


def _views(images: Sequence[Image.Image], keys: Sequence[str], side: int, count: int) -> Tensor:
    """`count` augmented views of each picture [pictures * count, 3, side, side]."""
    made = []
    for image, key in zip(images, keys, strict=True):
        generator = generator_of("views", 0, key)
        made += [augment.apply(image, augment.sample(image.size, generator), side) for _ in range(count)]
    return torch.stack(made)


def _picture(key: str, members: Members) -> Picture:
    return Picture(key, members[image_extension(members) or ""], members["txt"].decode())
