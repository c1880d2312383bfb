"""From shards to samples. Bad samples are skipped and counted by reason; too many of them are an error."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mcliplib.data.raw import Members, raw_samples
from mcliplib.data.report import ReadReport, Skip
from mcliplib.data.sample import MAX_PIXELS, GiantImageError, Sample, decode_image
from mcliplib.errors import UserError

IMAGE_EXTENSIONS = ("webp", "jpg", "jpeg", "png")

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def image_extension(members: Mapping[str, Any]) -> str | None:
    """Which of a sample's members is its picture; None where there is none."""
    return next((one for one in IMAGE_EXTENSIONS if one in members), None)


def encoded_pairs(shards: Iterable[Path]) -> Iterator[tuple[str, Members]]:
    """Key and members of the samples that have a picture and a caption; nothing is decoded."""
    for shard in shards:
        for key, members in raw_samples(str(shard), {}):
            if "txt" in members and image_extension(members):
                yield key, members


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
            raise UserError(f"no shard at {shard}: check the path, or {cure}")
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
