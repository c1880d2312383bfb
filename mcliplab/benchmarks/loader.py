"""Loading a reinforced set against loading a plain one: the same pictures, batch by batch, in turn.

The embeddings are random unit vectors of the paper's teachers' sizes and the synthetic captions are other pictures'
real ones: what they say does not change the time.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcliplab.benchmarks.pictures import web_jpeg
from mcliplab.benchmarks.storage import unit_rows
from mcliplab.pairs import encoded_pairs
from mcliplib.data import Sample, read_shards, write_shard
from mcliplib.data.reader import Members, image_extension
from mcliplib.errors import UserError
from mcliplib.latency.timing import Measurement, measure
from mcliplib.reinforce import augment
from mcliplib.reinforce.augment import PAPER
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.sample import EmbeddingDType, ReinforcedSample, to_members
from mcliplib.reinforce.store import generator_of
from mcliplib.tokenizer import Tokenizer
from mcliplib.train.batches import PairBatches, ReinforcedBatches
from mcliplib.train.streaming import pair_stream, reinforced_stream

TEACHER_DIMS = (768, 768)
AUGMENTATIONS, CAPTIONS = 10, 5
PLAIN = ("plain, from shards", "plain, decoded once")


@dataclass(frozen=True)
class LoaderSettings:
    """The settings of a loading benchmark.

    Attributes:
        samples: pictures.
        picture_size: pixels of the longer side, to which pictures are scaled and stored as JPEG, as img2dataset makes
            shards of DataComp's; None leaves them as they are.
        batch_size: pairs in a batch.
        image_size: pixels, height and width.
        dtype: of the stored embeddings.
        rounds: batches of each contender.
    """

    samples: int = 512
    picture_size: int | None = 512
    batch_size: int = 64
    image_size: int = 96
    dtype: EmbeddingDType = "bfloat16"
    rounds: int = 30


def compare_loaders(shards: Iterable[Path], settings: LoaderSettings, folder: Path) -> Measurement:
    """Milliseconds of a batch, in one thread: from shards and from memory, plain and reinforced.

    Args:
        shards: plain ones, with at least `settings.samples` pictures.
        settings: of the benchmark.
        folder: for the shards that are read, made here.

    Raises:
        UserError: too few pictures.
    """
    chosen = list(itertools.islice(encoded_pairs(shards), settings.samples))
    if len(chosen) < settings.samples:
        raise UserError(f"the data hold {len(chosen)} pictures, fewer than the {settings.samples} wanted")
    if settings.picture_size is not None:
        chosen = [(key, _as_jpeg(members, settings.picture_size)) for key, members in chosen]
    plain = write_shard(folder / "plain.tar", chosen)
    pairs = list(read_shards(plain))
    reinforced = write_shard(folder / "reinforced.tar", _reinforced(chosen, pairs, settings.dtype))
    return measure(_contenders(plain, reinforced, pairs, settings), rounds=settings.rounds, threads=1)


def _contenders(
    plain: Path, reinforced: Path, pairs: Sequence[Sample], settings: LoaderSettings
) -> dict[str, Callable[[], object]]:
    tokenizer = Tokenizer()
    size, batch = settings.image_size, settings.batch_size
    stored = list(read_reinforced(reinforced))
    in_memory: dict[str, Callable[[int], object]] = {
        PLAIN[1]: PairBatches(pairs, tokenizer, image_size=size, batch_size=batch, seed=0),
        "reinforced, decoded once": ReinforcedBatches(
            stored, tokenizer, image_size=size, batch_size=batch, seed=0, keep="images"
        ),
        "reinforced, views made once": _warm(
            ReinforcedBatches(stored, tokenizer, image_size=size, batch_size=batch, seed=0, keep="views")
        ),
    }
    streams = {
        PLAIN[0]: _endless(
            lambda epoch: pair_stream(plain, tokenizer, image_size=size, batch_size=batch, epoch=epoch, buffer=batch)
        ),
        "reinforced, from shards": _endless(
            lambda epoch: reinforced_stream(
                reinforced, tokenizer, image_size=size, batch_size=batch, epoch=epoch, buffer=batch
            )
        ),
    }
    calls: dict[str, Callable[[], object]] = {name: _next(stream) for name, stream in streams.items()}
    return calls | {name: _step(batches) for name, batches in in_memory.items()}


def _as_jpeg(members: Members, size: int) -> Members:
    stored = _extension(members)
    kept = {name: content for name, content in members.items() if name != stored}
    return Members(kept | {"jpg": web_jpeg(members[stored], size)})


def _extension(members: Members) -> str:
    """Return the extension of the sample's picture, as "jpg"; "" where it has none."""
    return image_extension(members) or ""


def _reinforced(
    chosen: Sequence[tuple[str, Members]], pairs: Sequence[Sample], dtype: EmbeddingDType
) -> Iterator[tuple[str, dict[str, bytes]]]:
    for place, ((key, members), pair) in enumerate(zip(chosen, pairs, strict=True)):
        generator = generator_of("loader", 0, key)
        extension = _extension(members)
        sample = ReinforcedSample(
            key,
            tuple(augment.sample(pair.image.size, generator, PAPER) for _ in range(AUGMENTATIONS)),
            tuple(pairs[(place + 1 + n) % len(pairs)].caption for n in range(CAPTIONS)),
            unit_rows(AUGMENTATIONS, TEACHER_DIMS, generator),
            unit_rows(1 + CAPTIONS, TEACHER_DIMS, generator),
            caption=pair.caption,
            image=members[extension],
            image_extension=extension,
        )
        yield key, to_members(sample, dtype, teacher_dims=TEACHER_DIMS)


def _warm(batches: ReinforcedBatches) -> ReinforcedBatches:
    """Make every stored view of every sample, so that no timed batch has to; return the batches."""
    for row in range(len(batches.samples)):
        for view in range(AUGMENTATIONS):
            batches.view(row, view)
    return batches


def _endless(stream: Callable[[int], Iterable[object]]) -> Iterator[object]:
    for epoch in itertools.count():
        yield from stream(epoch)


def _next(stream: Iterator[object]) -> Callable[[], object]:
    return lambda: next(stream)


def _step(batches: Callable[[int], object]) -> Callable[[], object]:
    steps = itertools.count()
    return lambda: batches(next(steps))
