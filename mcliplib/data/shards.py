"""Tar shards at the byte level: written atomically, the same bytes every time; opened so that a break is noticed."""

import contextlib
import gzip
import hashlib
import io
import itertools
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from braceexpand import braceexpand

from mcliplib.errors import UserError
from mcliplib.files import blaming, check_regular, replacing

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_MEMBER = 256 << 20  # bytes of one picture or one file in a shard
MAX_TEXT = 4 << 20  # bytes of a caption or of the metadata of one sample
MAX_HEADERS = 8 << 20  # bytes that say something about a file in a shard
_MAX_INFLATION = 100  # times the compressed size; flat drawings with captions reach 20
_MOST_NAMES = 200_000  # of shards; the largest public sets have 70,000
_LONGEST_KEY = 88  # bytes; a tar's name has 100, and the longest extension is `.paug.json`
_BLOCK = tarfile.BLOCKSIZE
_END = b"\0" * (2 * _BLOCK)


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
        packed = gzip.GzipFile("", "wb", 9, raw, mtime=0) if target.suffix == ".gz" else contextlib.nullcontext(raw)
        with packed as stream:
            _write_tar(stream, samples)
    return target


def _write_tar(stream: Any, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for key, members in samples:
            if "." in key or "/" in key:
                raise ValueError(f"sample key {key!r} must not hold a dot or a slash")
            for extension in sorted(members):
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(members[extension])
                info.mode = 0o644
                archive.addfile(info, io.BytesIO(members[extension]))


def url_to_fs(url: str) -> tuple[Any, str]:
    """fsspec's file system of a path or URL, and the path in it.

    Raises:
        UserError: no such protocol, or its package is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        protocol = url.partition("://")[0]
        extra = {"https": "http"}.get(protocol, protocol)
        cure = f"; try: pip install 'fsspec[{extra}]'" if isinstance(error, ImportError) else ""
        raise UserError(f"{url}: cannot read {protocol}:// ({error}){cure}") from error
    return fs, path


def safe_key(name: str) -> str:
    """The name without dots and slashes and short enough for a tar; different names give different keys."""
    escaped = name.replace("%", "%25").replace("/", "%2F").replace(".", "%2E") or "%"
    encoded = escaped.encode(errors="backslashreplace")
    if len(encoded) <= _LONGEST_KEY:
        return encoded.decode()
    digest = hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:24]
    return encoded[: _LONGEST_KEY - 25].decode(errors="ignore") + "~" + digest


def expand_braces(name: str) -> list[str]:
    """The names that a pattern such as `shards/{000000..000003}.tar` stands for; itself where it is no pattern.

    Raises:
        UserError: its braces do not pair, or it stands for more than can be shards.
    """
    found: list[str] = []
    with blaming(f"{name[:200]}: its braces cannot be read", "; a range is {000000..000009}"):
        ranges = re.findall(r"\{(-?\d+)\.\.(-?\d+)", name)  # judged first: braceexpand holds all numbers in memory
        if all(abs(int(last) - int(first)) < _MOST_NAMES for first, last in ranges):
            found = list(itertools.islice(braceexpand(name), _MOST_NAMES + 1))
    if not 1 <= len(found) <= _MOST_NAMES:
        raise UserError(f"{name[:200]}: its braces stand for more than {_MOST_NAMES:,} names")
    return found


class WatchedStream:
    """The decompressed bytes of one shard, for a tar reader; remembers whether the archive really ended.

    A tar reader takes the end of the data for the end of the archive, so a cut shard would pass in silence.
    Decompression errors are kept in `broken` and reported to the reader as the end of the data. So is data beyond what
    the reader has asked leave for, which is how a few compressed bytes that grow to gigabytes are noticed.

    Attributes:
        broken: why the data ends too early; None where it does not.
        most: no archive in this file can be longer, in bytes.

    Raises:
        UserError: there is no such file, or it is none that can be read.
    """

    def __init__(self, path: str) -> None:
        self.broken: str | None = None
        self._tail = b""
        self._left = MAX_HEADERS
        self._file = check_regular(Path(path)).open("rb")  # closed by the reader through `close`
        self.most = os.fstat(self._file.fileno()).st_size
        packed = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(0)
        self._source = cast(BinaryIO, gzip.GzipFile(fileobj=self._file)) if packed else self._file
        if packed:
            self.most = max(MAX_MEMBER, self.most * _MAX_INFLATION)

    def allow(self, size: int) -> None:
        """Permit so many more bytes, and headers after them."""
        self._left = size + MAX_HEADERS

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` decompressed bytes; empty at the end and after a break."""
        if self.broken:
            return b""
        try:
            data = self._source.read(size)
        except (EOFError, OSError, zlib.error) as error:
            self.broken = f"the compressed data breaks off ({error})"
            return b""
        self._left -= len(data)
        if self._left < 0:
            self.broken = f"the archive breaks off: more than {MAX_HEADERS >> 20} MiB between two files"
            return b""
        self._tail = (self._tail + data)[-len(_END) :]
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check_end(self) -> None:
        """Read what the tar reader left and note in `broken` what is wrong with the end of the archive."""
        self.allow(0)
        while data := self.read(1 << 20):
            if data.strip(b"\0"):
                self.broken = "there is data behind the archive's end, which is not read"
        if not self.broken and self._tail != _END:
            self.broken = "the archive breaks off before its end mark"
