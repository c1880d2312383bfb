"""Read Qt's compiled resource files (.rcc): a tree of names over blobs, each plain or zlib-compressed."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from mcliplib.errors import UserError

_COMPRESSED_ZLIB, _DIRECTORY, _COMPRESSED_ZSTD = 1, 2, 4


class ResourceFile:
    """One .rcc file. Numbers in it are big-endian; a node has 14 bytes, 22 from version 2 (a time was added).

    Raises:
        UserError: the file is no Qt resource file, or holds a blob compressed with zstd (none of ours does).
    """

    def __init__(self, path: Path) -> None:
        self._bytes = path.read_bytes()
        if self._bytes[:4] != b"qres":
            raise UserError(f"{path} is not a Qt resource file: fetch its package again")
        self._path = path
        version, self._tree, self._data, self._names = struct.unpack_from(">4I", self._bytes, 4)
        self._node_size = 22 if version >= 2 else 14

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path (starting with a slash) and content of every file."""
        yield from self._walk(0, "")

    def _walk(self, number: int, path: str) -> Iterator[tuple[str, bytes]]:
        node = self._tree + number * self._node_size
        flags = struct.unpack_from(">H", self._bytes, node + 4)[0]
        if flags & _DIRECTORY:
            count, first = struct.unpack_from(">2I", self._bytes, node + 6)
            for child in range(first, first + count):
                yield from self._walk(child, f"{path}/{self._name(child)}")
        else:
            yield path, self._blob(struct.unpack_from(">I", self._bytes, node + 10)[0], flags)

    def _name(self, number: int) -> str:
        """A name: its length in UTF-16 units, a hash, the units."""
        start = self._names + struct.unpack_from(">I", self._bytes, self._tree + number * self._node_size)[0]
        length = struct.unpack_from(">H", self._bytes, start)[0]
        return self._bytes[start + 6 : start + 6 + 2 * length].decode("utf-16-be")

    def _blob(self, offset: int, flags: int) -> bytes:
        start = self._data + offset
        size = struct.unpack_from(">I", self._bytes, start)[0]
        content = self._bytes[start + 4 : start + 4 + size]
        if flags & _COMPRESSED_ZSTD:
            raise UserError(
                f"{self._path} uses zstd compression, which this reader does not know: use the pinned version"
            )
        return zlib.decompress(content[4:]) if flags & _COMPRESSED_ZLIB else content
