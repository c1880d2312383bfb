"""Chunks: files with the vectors of up to 4,096 pictures each and the state of their files; and search in them.

A chunk is one safetensors file, which appears whole or not at all: vectors and states never contradict each other, and
a chunk that is lost or removed only means that its pictures are indexed again. Tensors, of n pictures with a vector and
m - n that cannot be read: `vectors` [n, d] (float32, or int8 with `step` [n]: see `mcliplib.checkpoints.int8`), `size`
[m] (bytes), `mtime` [m] (nanoseconds), `sha256` [m, 32], and `names`, JSON: m paths, m - n faults.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from mcliplib.checkpoints.int8 import quantize_rows
from mcliplib.errors import UserError
from mcliplib.files import blaming, check_regular, read_json, replacing

CHUNK = 4096  # pictures
FORMAT = "mcliplib-search"
_MOST_BYTES = 1 << 28  # of a chunk: 4,096 vectors of 8,192 floats are half of it
Dtype = Literal["float32", "int8"]


class Entry(NamedTuple):
    """A picture in a chunk.

    Attributes:
        path: relative to the folder of pictures.
        size: bytes.
        mtime_ns: when the file was last changed, in nanoseconds.
        sha256: of its bytes.
        vector: [d], float32 or int8; None if the picture cannot be read.
        step: what an int8 vector is multiplied with.
        fault: why it cannot be read.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: bytes
    vector: NDArray[Any] | None
    step: float = 1.0
    fault: str = ""


def stored(features: Float[np.ndarray, "n d"], dtype: Dtype) -> Iterator[tuple[NDArray[Any], float]]:
    """Each vector in the form in which it is kept, and its step."""
    rows, steps = quantize_rows(features) if dtype == "int8" else (features, np.ones(len(features), np.float32))
    return zip(rows, steps.tolist(), strict=True)


class Chunk:
    """A chunk in a file, checked and mapped into memory.

    Args:
        path: `NUMBER.safetensors`.
        model: hash of the model that its index is of.
        dim: numbers of a vector.
        dtype: of the vectors.

    Attributes:
        number: of the chunk.
        crc: checksum of all that it holds.
        vectors: [n, d].
        step: [n].

    Raises:
        MissingFileError: no such file.
        UserError: it is damaged, or of another index.
    """

    def __init__(self, path: Path, model: str, dim: int, dtype: Dtype) -> None:
        check_regular(path, _MOST_BYTES)
        self.path = path
        cure = "; remove this file: its pictures are then indexed again"
        with blaming(f"{path}: is damaged, or no part of an index", cure):
            self.number = int(path.stem)
            with safe_open(path, framework="np") as file:  # checks that the file is as long as its header says
                header = dict(file.metadata() or {})
            if header.get("format") != FORMAT:
                raise ValueError("another format")
            parts = _mapped(path)
            self.crc = _crc(parts)
            if header["crc32"] != f"{self.crc:08x}":
                raise ValueError("its checksum differs")
            if header["model"] != model or parts["vectors"].dtype != dtype:
                raise UserError(
                    f"{path}: is a part of another index, made by another model or with another --dtype{cure}"
                )
            self.vectors, self._states = parts.pop("vectors"), parts
            self.step = parts.pop("step", np.ones(len(self.vectors), np.float32))
            count, total = len(self.vectors), len(parts["size"])
            if self.vectors.shape != (count, dim) or not count <= total <= CHUNK or self.step.shape != (count,):
                raise ValueError(f"shape {self.vectors.shape} for {total} files")
            if (parts["mtime"].shape, parts["sha256"].shape) != ((total,), (total, 32)):
                raise ValueError("states of another number of files")

    def __len__(self) -> int:
        """Files with a state, readable or not."""
        return len(self._states["size"])

    @cached_property
    def _names(self) -> tuple[list[str], list[str]]:
        """Paths and faults.

        Raises:
            UserError: they are not such.
        """
        names = read_json(self._states["names"].tobytes(), str(self.path))
        with blaming(f"{self.path}: its names are damaged", "; remove this file: its pictures are then indexed again"):
            paths, faults = names["paths"], names["faults"]
            if (len(paths), len(faults)) != (len(self), len(self) - len(self.vectors)):
                raise ValueError("of another number of files")
            if not all(isinstance(one, str) for one in (*paths, *faults)):
                raise ValueError("not all are texts")
            if any(one[:1] in ("", "/") or "\0" in one or ".." in one.split("/") for one in paths):
                raise ValueError("a path leads out of the folder")
            return paths, faults

    @property
    def paths(self) -> list[str]:
        """The pictures', relative to their folder, in the order of the vectors; then those without a vector."""
        return self._names[0]

    def broken(self) -> list[tuple[str, str]]:
        """Path and fault of each picture that cannot be read."""
        paths, faults = self._names
        return list(zip(paths[len(self.vectors) :], faults, strict=True))

    def entries(self) -> list[Entry]:
        """All of it, in a form that can be changed and written again."""
        (paths, faults), without = self._names, len(self) - len(self.vectors)
        sizes, times = self._states["size"].tolist(), self._states["mtime"].tolist()
        digests = [row.tobytes() for row in self._states["sha256"]]
        vectors = [*self.vectors, *[None] * without]
        steps, whys = [*self.step.tolist(), *[1.0] * without], [*[""] * len(self.vectors), *faults]
        return [Entry(*one) for one in zip(paths, sizes, times, digests, vectors, steps, whys, strict=True)]

    def scores(self, vector: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
        """The cosines of all pictures with a vector of length 1."""
        return (self.vectors.astype(np.float32, copy=False) @ vector) * self.step


def write_chunk(path: Path, entries: Sequence[Entry], model: str, dim: int, dtype: Dtype) -> None:
    """Write a chunk, whole or not at all; without entries, remove it.

    Raises:
        WriteError: it cannot be written.
    """
    if not entries:
        path.unlink(missing_ok=True)
        return
    entries = sorted(entries, key=lambda one: one.vector is None)
    vectors = [one.vector for one in entries if one.vector is not None]
    names = {"paths": [one.path for one in entries], "faults": [one.fault for one in entries[len(vectors) :]]}
    parts: dict[str, NDArray[Any]] = {
        "vectors": np.array(vectors, dtype).reshape(len(vectors), dim),
        "size": np.array([one.size for one in entries], np.int64),
        "mtime": np.array([one.mtime_ns for one in entries], np.int64),
        "sha256": np.frombuffer(b"".join(one.sha256 for one in entries), np.uint8).reshape(-1, 32),
        "names": np.frombuffer(json.dumps(names).encode(), np.uint8),  # ASCII: a name may be no UTF-8
    }
    if dtype == "int8":
        parts["step"] = np.array([one.step for one in entries[: len(vectors)]], np.float32)
    with replacing(path) as temporary:
        save_file(parts, temporary, {"format": FORMAT, "model": model, "crc32": f"{_crc(parts):08x}"})


class Found(NamedTuple):
    """A vector near a query: its cosine, its chunk's place in the list, its row there."""

    score: float
    chunk: int
    row: int


def nearest(chunks: Sequence[Chunk], vector: Float[np.ndarray, " d"], k: int) -> list[Found]:
    """The `k` vectors with the largest cosines, largest first: exact, with one chunk in memory at a time.

    Args:
        chunks: to search.
        vector: of length 1.
        k: at least 1; fewer are found where there are fewer.
    """
    best = np.zeros((0, 3))
    for at, chunk in enumerate(chunks):
        scores = chunk.scores(vector)
        rows = np.argpartition(-scores, k)[:k] if len(scores) > k else np.arange(len(scores))
        best = np.concatenate([best, np.stack([scores[rows], np.full(len(rows), at), rows], axis=1)])
        best = best[np.argsort(-best[:, 0], kind="stable")[:k]]
    return [Found(float(score), int(at), int(row)) for score, at, row in best]


def rescored(
    chunks: Sequence[Chunk], places: Int[np.ndarray, "m 2"], vector: Float[np.ndarray, " d"], k: int
) -> list[Found]:
    """The best `k` of the vectors at these places, chunk and row, by their exact cosines."""
    found = []
    for at, row in places.tolist():
        chunk = chunks[at]
        score = float(chunk.vectors[row].astype(np.float32) @ vector) * float(chunk.step[row])
        found.append(Found(score, at, row))
    return sorted(found, key=lambda one: -one.score)[:k]


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file whose header safetensors has checked, without copying them."""
    raw = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    kinds = {"F32": np.float32, "I8": np.int8, "I64": np.int64, "U8": np.uint8}
    parts: dict[str, NDArray[Any]] = {}
    for name, about in json.loads(raw[8:start].tobytes()).items():
        if name != "__metadata__":
            first, last = about["data_offsets"]
            flat = np.asarray(raw[start + first : start + last])
            parts[name] = flat.view(kinds[about["dtype"]]).reshape(about["shape"])
    return parts


def _crc(parts: dict[str, NDArray[Any]]) -> int:
    crc = 0
    for name in sorted(parts):
        content = np.ascontiguousarray(parts[name]).reshape(-1).view(np.uint8)
        crc = zlib.crc32(content.data, zlib.crc32(name.encode(), crc))
    return crc
