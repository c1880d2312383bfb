"""From shards to samples, decoded or not.

Bad samples are skipped and counted by reason; too many of them are an error.
"""

import json
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from webdataset.tariterators import base_plus_ext, tar_file_iterator

from mcliplib.data.sample import MAX_PIXELS, GiantImageError, Sample, decode_image
from mcliplib.data.shards import WatchedStream
from mcliplib.errors import MissingFileError, UserError, first_line

_ENOUGH_TO_JUDGE = 100  # samples met before the share of skipped ones can end a pass early
Members = dict[str, bytes]  # extension in lower case, without the first dot -> content
IMAGE_EXTENSIONS = ("webp", "jpg", "jpeg", "png")
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Skip:
    """One sample that was left out: where it stood and why."""

    shard: str
    key: str
    reason: str


@dataclass
class ReadReport:
    """Counts of one pass over shards; give it to `read_shards` and read it afterwards.

    A sample is skipped for one of: ``corrupt image``, ``giant image``, ``missing image``, ``missing caption``,
    ``bad metadata``. A shard that ends too early is in ``broken_shards``; its readable samples count as read.
    """

    read: int = 0
    skipped: list[Skip] = field(default_factory=list)
    broken_shards: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> Counter[str]:
        """How many samples were skipped for each reason."""
        return Counter(skip.reason for skip in self.skipped)

    @property
    def skipped_share(self) -> float:
        """Skipped samples as a share of all samples met, 0 to 1."""
        met = self.read + len(self.skipped)
        return len(self.skipped) / met if met else 0.0

    def skip(self, skip: Skip, max_skipped: float) -> None:
        """Note a sample that was left out.

        Raises:
            UserError: as `check_share`, once enough samples were met to judge.
        """
        self.skipped.append(skip)
        if self.read + len(self.skipped) >= _ENOUGH_TO_JUDGE:
            self.check_share(max_skipped)

    def check_share(self, max_skipped: float) -> None:
        """Refuse a pass that left out too much.

        Raises:
            UserError: more than this share (0 to 1) was skipped.
        """
        if self.skipped_share > max_skipped:
            raise UserError(
                f"{self.skipped_share:.0%} of the samples cannot be used, more than the {max_skipped:.0%} allowed: "
                f"{self}. Repair the shards, or raise max_skipped if that is acceptable"
            )

    def __str__(self) -> str:
        parts = [f"{self.read:,} samples read"]
        for reason, count in sorted(self.reasons.items()):
            first = next(skip for skip in self.skipped if skip.reason == reason)
            parts.append(f"{count} skipped: {reason} (first: {first.key} in {first.shard})")
        parts += [f"{shard} is broken: {why}" for shard, why in self.broken_shards.items()]
        return "; ".join(parts)


def raw_samples(path: str, broken: dict[str, str], *, name: str | None = None) -> Iterator[tuple[str, Members]]:
    """Key and members of each sample, in the shard's order, on webdataset's own tar iterator.

    A member that is there already begins another sample of the same key (webdataset's own grouping ends a shard there
    with an exception).

    Args:
        path: a `.tar` or `.tar.gz`.
        broken: told why the shard ends too early, where it does, before the sample that it breaks off in is given.
        name: of the shard, in `broken` and in messages; the path unless given.

    Raises:
        UserError: the file is no tar archive.
    """
    stream = WatchedStream(path)
    try:
        key, members = "", Members()
        for file_name, content in _files(stream, name or path, broken):
            base, extension = base_plus_ext(file_name)
            if base is None:
                continue
            extension = extension.lower()
            if members and (base != key or extension in members):
                yield key, members
                members = Members()
            key = base
            members[extension] = content
        if members:
            yield key, members
    finally:
        stream.close()


def _files(stream: WatchedStream, name: str, broken: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file; a break ends the iteration and is noted."""
    met = 0
    try:
        for member in tar_file_iterator(stream):
            met += 1
            yield member["fname"], member["data"]
    except (tarfile.TarError, ValueError) as error:
        stream.broken = stream.broken or f"the archive breaks off ({first_line(error)})"
    stream.check_end()
    if stream.broken:
        broken[name] = stream.broken
        if not met:
            raise UserError(f"{name} is not a readable tar shard ({stream.broken}): fetch or build it again")


def image_extension(members: Mapping[str, Any]) -> str | None:
    """Which of a sample's members is its picture; None where there is none."""
    return next((one for one in IMAGE_EXTENSIONS if one in members), None)


class _BadSampleError(Exception):
    """Why one sample is left out; the text is the reason in the report."""


def read_shards(
    paths: Paths, *, report: ReadReport | None = None, max_skipped: float = 0.1, max_pixels: int = MAX_PIXELS
) -> Iterator[Sample]:
    """Read the samples of WebDataset shards in order, on webdataset's own tar iterators.

    Args:
        paths: one shard or several (``.tar`` or ``.tar.gz``).
        report: filled while reading; without one, skips are summed up in a warning at the end.
        max_skipped: largest share (0 to 1) of skipped samples that is still accepted.
        max_pixels: images whose header announces more are skipped undecoded.

    Raises:
        UserError: a shard does not exist or is no tar archive, or more than ``max_skipped`` was skipped.
    """
    shards = existing(paths, cure="run `mcliplib data build` to make the data sets")
    own = ReadReport() if report is None else report
    for shard in shards:
        yield from _read_shard(shard, own, max_skipped, max_pixels)
    own.check_share(max_skipped)
    if report is None and (own.skipped or own.broken_shards):
        warnings.warn(str(own), stacklevel=2)


def existing(paths: Paths, *, cure: str) -> list[str]:
    """The shards as text.

    Raises:
        UserError: one does not exist; ends with the cure.
    """
    shards = [os.fspath(paths)] if isinstance(paths, str | os.PathLike) else [os.fspath(path) for path in paths]
    for shard in shards:
        if not Path(shard).is_file():
            raise MissingFileError(f"no shard at {shard}: check the path, or {cure}")
    return shards


def _read_shard(shard: str, report: ReadReport, max_skipped: float, max_pixels: int) -> Iterator[Sample]:
    broken: dict[str, str] = {}
    for key, members in raw_samples(shard, broken):
        try:
            sample = _to_sample(key, members, max_pixels)
        except _BadSampleError as bad:
            if broken and str(bad).startswith("missing"):
                continue  # the sample the shard breaks off in: counted once, as the broken shard
            report.skip(Skip(shard, key, str(bad)), max_skipped)
            continue
        report.read += 1
        yield sample
    report.broken_shards.update(broken)


def _to_sample(key: str, raw: Members, max_pixels: int) -> Sample:
    extension = image_extension(raw)
    if extension is None:
        raise _BadSampleError("missing image")
    caption = raw.get("txt", b"").decode("utf-8", errors="replace").strip()
    if not caption:
        raise _BadSampleError("missing caption")
    try:
        meta = json.loads(raw.get("json", b"{}"))
    except ValueError as error:
        raise _BadSampleError("bad metadata") from error
    keywords = meta.get("keywords", []) if isinstance(meta, dict) else None
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        raise _BadSampleError("bad metadata")
    try:
        image = decode_image(raw[extension], max_pixels=max_pixels)
    except GiantImageError as error:
        raise _BadSampleError("giant image") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise _BadSampleError("corrupt image") from error
    return Sample(key=key, image=image, caption=caption, meta=meta)
