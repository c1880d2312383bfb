"""Tar shards at the byte level: written atomically, the same bytes every time; opened so that a break is noticed."""

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

from mcliplib.files import replacing

_BLOCK = tarfile.BLOCKSIZE
_END = b"\0" * (2 * _BLOCK)


@runtime_checkable
class _Writable(Protocol):
    def write(self, content: bytes, /) -> int: ...


def write_shard(path: str | os.PathLike[str], samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> Path:
    """Write one WebDataset shard; equal samples give equal bytes (no times, no owners, members sorted).

    Args:
        path: ends in ``.tar`` or ``.tar.gz``. Gzip pays for small samples: a tar pads every member to 512 bytes.
        samples: pairs of a key without dots and its members, extension without the first dot -> content.

    Returns:
        The path. It appears only when complete: the bytes go to a temporary name beside it first.

    Raises:
        ValueError: a key holds a dot or a slash, so that readers would split it wrongly.
    """
    target = Path(path)
    with replacing(target) as temporary, temporary.open("wb") as raw:
        if target.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
                _write_tar(packed, samples)
        else:
            _write_tar(raw, samples)
    return target


def _write_tar(stream: _Writable, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    with tarfile.open(fileobj=cast(Any, stream), mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for key, members in samples:
            if "." in key or "/" in key:
                raise ValueError(f"sample key {key!r} must not hold a dot or a slash")
            for extension in sorted(members):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(members[extension])
                info.mode = 0o644
                archive.addfile(info, io.BytesIO(members[extension]))


class WatchedStream:
    """The decompressed bytes of one shard, for a tar reader; remembers whether the archive really ended.

    A tar reader takes the end of the data for the end of the archive, so a cut shard would pass in silence.
    Decompression errors are kept in `broken` and reported to the reader as the end of the data.
    """

    def __init__(self, path: str) -> None:
        self.broken: str | None = None
        self._tail = b""
        self._file = open(path, "rb")  # noqa: SIM115 (closed by the reader through `close`)
        packed = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(0)
        self._source = cast(BinaryIO, gzip.GzipFile(fileobj=self._file)) if packed else self._file

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` decompressed bytes; empty at the end and after a break."""
        if self.broken:
            return b""
        try:
            data = self._source.read(size)
        except (EOFError, OSError, zlib.error) as error:
            self.broken = f"the compressed data breaks off ({error})"
            return b""
        self._tail = (self._tail + data)[-len(_END) :]
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check_end(self) -> None:
        """Read what the tar reader left and note in `broken` if the end-of-archive mark is missing."""
        while self.read(1 << 20):
            pass
        if not self.broken and self._tail != _END:
            self.broken = "the archive breaks off before its end mark"
