"""From shards to samples. Bad samples are skipped and counted by reason; too many of them are an error."""

import json
import os
import tarfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from webdataset.tariterators import group_by_keys, tar_file_iterator

from mcliplib.data.report import ReadReport, Skip
from mcliplib.data.sample import MAX_PIXELS, GiantImageError, Sample, decode_image
from mcliplib.data.shards import WatchedStream
from mcliplib.errors import UserError

IMAGE_EXTENSIONS = ("webp", "jpg", "jpeg", "png")
_ENOUGH_TO_JUDGE = 100  # samples met before the share of skipped ones can end a pass early

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


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
    shards = [str(paths)] if isinstance(paths, str | os.PathLike) else [str(path) for path in paths]
    for shard in shards:
        if not Path(shard).is_file():
            raise UserError(f"no shard at {shard}: check the path, or run `mcliplib data build` to make the data sets")
    own = ReadReport() if report is None else report
    for shard in shards:
        yield from _read_shard(shard, own, max_skipped, max_pixels)
    _check_share(own, max_skipped)
    if report is None and (own.skipped or own.broken_shards):
        warnings.warn(str(own), stacklevel=2)


def _read_shard(shard: str, report: ReadReport, max_skipped: float, max_pixels: int) -> Iterator[Sample]:
    stream = WatchedStream(shard)
    try:
        for raw in group_by_keys(_members(stream, shard)):
            try:
                sample = _to_sample(raw, max_pixels)
            except _BadSampleError as bad:
                if stream.broken and str(bad).startswith("missing"):
                    continue  # the sample the shard breaks off in: counted once, as the broken shard
                report.skipped.append(Skip(shard, raw["__key__"], str(bad)))
                if report.read + len(report.skipped) >= _ENOUGH_TO_JUDGE:
                    _check_share(report, max_skipped)
                continue
            report.read += 1
            yield sample
        stream.check_end()
    finally:
        stream.close()
    if stream.broken:
        report.broken_shards[shard] = stream.broken


def _members(stream: WatchedStream, shard: str) -> Iterator[dict[str, Any]]:
    """The members of one tar as webdataset's dictionaries; a break ends the iteration and is noted on the stream."""
    met = 0
    try:
        for member in tar_file_iterator(stream):
            met += 1
            yield {**member, "__url__": shard}
    except (tarfile.TarError, ValueError) as error:
        stream.broken = stream.broken or f"the archive breaks off ({str(error).splitlines()[0]})"
    stream.check_end()
    if stream.broken and not met:
        raise UserError(f"{shard} is not a readable tar shard ({stream.broken}): fetch or build it again")


def _to_sample(raw: dict[str, Any], max_pixels: int) -> Sample:
    payload = next((raw[extension] for extension in IMAGE_EXTENSIONS if extension in raw), None)
    if payload is None:
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
        image = decode_image(payload, max_pixels=max_pixels)
    except GiantImageError as error:
        raise _BadSampleError("giant image") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise _BadSampleError("corrupt image") from error
    return Sample(key=raw["__key__"], image=image, caption=caption, meta=meta)


def _check_share(report: ReadReport, max_skipped: float) -> None:
    if report.skipped_share > max_skipped:
        raise UserError(
            f"{report.skipped_share:.0%} of the samples cannot be used, more than the {max_skipped:.0%} allowed: "
            f"{report}. Repair the shards, or raise max_skipped if that is acceptable"
        )
