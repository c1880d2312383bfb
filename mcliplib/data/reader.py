"""From shards to samples, decoded or not.

Bad samples are skipped and counted by reason; too many of them are an error.
"""

import contextlib
import os
import re
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from mcliplib.data.sample import Sample
from mcliplib.data.shards import MAX_MEMBER, MAX_TEXT, WatchedStream
from mcliplib.errors import MissingFileError, UserError, first_line
from mcliplib.files import read_json
from mcliplib.images import MAX_PIXELS, PictureError, read_picture

_ENOUGH_TO_JUDGE = 100  # samples met before the share of skipped ones can end a pass early
_META = re.compile(r"__[^/]*__($|/)")  # names of files about the shard, in webdataset's form
IMAGE_EXTENSIONS = ("webp", "jpg", "jpeg", "png", "heic", "heif", "avif")
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Members(dict[str, bytes]):
    """The files of one sample: extension in lower case, without the first dot -> content.

    Attributes:
        fault: why the sample cannot be used; empty where nothing is known against it.
    """

    fault: str = ""


@dataclass(frozen=True)
class Skip:
    """One sample that was left out: where it stood and why."""

    shard: str
    key: str
    reason: str


@dataclass
class ReadReport:
    """Counts of one pass over shards; give it to `read_shards` and read it afterwards.

    A sample is skipped for one of: ``corrupt image``, ``giant image``, ``HEIC without pillow-heif``, ``missing image``,
    ``missing caption``, ``bad metadata``, ``file of more than ... MiB``. A shard that ends too early is in
    ``broken_shards``; its readable samples count as read. `cure` is what the error advises where too many are skipped.
    """

    read: int = 0
    skipped: list[Skip] = field(default_factory=list)
    broken_shards: dict[str, str] = field(default_factory=dict)
    cure: str = "Repair the shards, or in Python raise max_skipped if that is acceptable"

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
                f"{self}. {self.cure}"
            )

    def __str__(self) -> str:
        parts = [f"{self.read:,} samples read"]
        for reason, count in sorted(self.reasons.items()):
            first = next(skip for skip in self.skipped if skip.reason == reason)
            parts.append(f"{count} skipped: {reason} (first: {first.key} in {first.shard})")
        parts += [f"{shard} is broken: {why}" for shard, why in self.broken_shards.items()]
        return "; ".join(parts)


def raw_samples(path: str, broken: dict[str, str], *, name: str | None = None) -> Iterator[tuple[str, Members]]:
    """Key and members of each sample, in the shard's order.

    Members are grouped as webdataset does it, by the name up to its first dot. Unlike there, a member that is there
    already begins another sample of the same key, and a picture whose name has more dots (`cat.2.jpg`) is a sample of
    its own, `cat.2`, with what else has this name. Hidden files are ignored, as are the twins (`._cat.jpg`,
    `__MACOSX/`) that macOS adds.

    Args:
        path: a `.tar` or `.tar.gz`.
        broken: told why the shard ends too early, where it does, before the sample that it breaks off in is given.
        name: of the shard, in `broken` and in messages; the path unless given.

    Raises:
        UserError: the file is no tar archive.
    """
    with contextlib.closing(WatchedStream(path)) as stream:
        key, members = "", Members()
        for file_name, content, fault in _files(stream, name or path, broken):
            folder, slash, plain = file_name.rpartition("/")
            stem, dot, extension = plain.partition(".")
            if not stem or not dot or file_name.startswith("__MACOSX/") or "/__MACOSX/" in file_name:
                continue
            base, extension = folder + slash + stem, extension.lower()
            if members and (base != key or extension in members):
                yield from _split(key, members)
                members = Members()
            key = base
            members[extension] = content
            members.fault = members.fault or fault
        if members:
            yield from _split(key, members)


def _split(key: str, members: Members) -> Iterator[tuple[str, Members]]:
    """The sample, then those of its pictures that have names of their own."""
    parts = [extension.rpartition(".") for extension in members]
    own = {stem: Members() for stem, _, last in parts if stem and last in IMAGE_EXTENSIONS}
    if not own:
        yield key, members
        return
    rest = Members()
    for extension, content in members.items():
        stem = next((stem for stem in own if extension.startswith(f"{stem}.")), "")
        (own[stem] if stem else rest)[extension.removeprefix(f"{stem}.") if stem else extension] = content
    for name, part in [(key, rest), *((f"{key}.{stem}", part) for stem, part in own.items())]:
        if part:
            part.fault = members.fault
            yield name, part


def _files(stream: WatchedStream, name: str, broken: dict[str, str]) -> Iterator[tuple[str, bytes, str]]:
    """Name, content and fault of each file; a break ends the iteration and is noted."""
    met = 0
    try:
        with tarfile.open(fileobj=cast(Any, stream), mode="r|") as archive:
            while (member := archive.next()) is not None:
                cast(Any, archive).members.clear()  # which would grow with the archive
                met += 1
                if member.size < 0 or archive.offset > stream.most + tarfile.RECORDSIZE:
                    raise tarfile.ReadError(f"{member.name} claims {member.size:,} bytes, more than there can be")
                most = MAX_TEXT if member.name.lower().endswith((".txt", ".json")) else MAX_MEMBER
                stream.allow(archive.offset - member.offset_data)
                if member.isreg() and not _META.match(member.name):
                    fits = member.size <= most
                    content = cast(Any, archive.extractfile(member)).read() if fits else b""
                    readable = member.name.encode(errors="backslashreplace").decode()
                    yield readable, content, "" if fits else f"file of more than {most >> 20} MiB"
    except (tarfile.TarError, ValueError, OverflowError) as error:
        stream.broken = stream.broken or f"the archive breaks off ({first_line(error)})"
    stream.check_end()
    if stream.broken:
        broken[name] = stream.broken
        if not met:
            raise UserError(f"{name} is not a readable tar shard ({stream.broken}): fetch or build it again")


def image_extension(members: Mapping[str, Any]) -> str | None:
    """Which of a sample's members is its picture; None where there is none."""
    return next((one for one in IMAGE_EXTENSIONS if one in members), None)


def read_shards(
    paths: Paths,
    *,
    report: ReadReport | None = None,
    max_skipped: float = 0.1,
    max_pixels: int = MAX_PIXELS,
    side: int | None = None,
) -> Iterator[Sample]:
    """Read the samples of WebDataset shards in order.

    Args:
        paths: one shard or several (``.tar`` or ``.tar.gz``).
        report: filled while reading; without one, skips are summed up in a warning at the end.
        max_skipped: largest share (0 to 1) of skipped samples that is still accepted.
        max_pixels: pictures that announce more are skipped (`mcliplib.images.read_picture`).
        side: pixels to which the shorter side of a larger picture is shrunk, for less memory.

    Raises:
        UserError: a shard does not exist or is no tar archive, or more than ``max_skipped`` was skipped.
    """
    own = ReadReport() if report is None else report
    for shard in existing(paths, cure="run `mcliplib data build` to make the data sets"):
        broken: dict[str, str] = {}
        for key, members in raw_samples(shard, broken):
            sample = _to_sample(key, members, max_pixels, side)
            if isinstance(sample, str):
                if not (broken and sample.startswith("missing")):  # else the one that the shard breaks off in
                    own.skip(Skip(shard, key, sample), max_skipped)
                continue
            own.read += 1
            yield sample
        own.broken_shards.update(broken)
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
        if not os.path.isfile(shard):  # unlike pathlib's, it takes any name
            raise MissingFileError(f"no shard at {shard}: check the path, or {cure}")
    return shards


def _to_sample(key: str, raw: Members, max_pixels: int, side: int | None) -> Sample | str:
    """The sample, or why there is none."""
    extension = image_extension(raw)
    caption = raw.get("txt", b"").decode("utf-8", errors="replace").strip()
    if raw.fault or extension is None or not caption:
        return raw.fault or ("missing caption" if extension else "missing image")
    try:
        meta = read_json(raw.get("json", b"{}"), most=MAX_TEXT)
        if not isinstance(meta, dict):
            return "bad metadata"
        image = read_picture(raw[extension], max_pixels=max_pixels, side=side).image
    except UserError as error:
        return error.reason if isinstance(error, PictureError) else "bad metadata"
    if "keywords" in meta:
        meta["keywords"] = words_of(meta["keywords"])
    return Sample(key=key, image=image, caption=caption, meta=meta)


def words_of(value: Any) -> list[str]:
    """Keywords as people write them: a list, or one text with commas; what is neither has none."""
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    if words is value and all(isinstance(word, str) for word in words):
        return words
    return [str(word).strip() for word in words if isinstance(word, str | int | float) and str(word).strip()]
