"""The first pass over the input: what is there, what is a fault or a duplicate, and a fingerprint of it all.

It makes every shard's work independent of the others: which of two equal samples stays is known before any starts.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcliplib.data.report import Skip
from mcliplib.errors import UserError
from mcliplib.reinforce.sources import RawSample, Source


@dataclass(frozen=True)
class Task:
    """The work on one source.

    Attributes:
        index: of the output shard.
        source: where its samples are.
        count: samples there, faulty ones too.
        skips: position of each sample that is left out unseen -> its key and the reason.
        fingerprint: SHA-256 of all samples of the source, in hexadecimal.
        broken: why the source ends too early; empty where it does not.
    """

    index: int
    source: Source
    count: int
    skips: dict[int, Skip]
    fingerprint: str
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
    """Why the sample is one too many, or nothing, and then it takes its place."""
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
