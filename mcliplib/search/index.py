"""The index of a folder of pictures: built once, then kept up to date, and asked."""

import contextlib
import hashlib
import json
import math
import operator
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcliplib.data.shards import MAX_MEMBER
from mcliplib.errors import MissingFileError, UserError, WriteError, first_line
from mcliplib.files import fitted, locked, read_bytes, read_json, write_text
from mcliplib.images import PictureError
from mcliplib.model import MobileCLIP
from mcliplib.search import graph
from mcliplib.search.graph import Progress
from mcliplib.search.models import STUDENT, Embedder, Identity
from mcliplib.search.pictures import State, check_folder, is_picture_file, list_pictures, settled, sha256_of
from mcliplib.search.vectors import CHUNK, Chunk, Dtype, Entry, nearest, stored, write_chunk
from mcliplib.threads import usable_cores

HOME = ".mcliplib-search"  # in the folder of pictures, unless another place is named
Query = str | os.PathLike[str] | Image.Image
_ABOUT = "index.json"
_CHUNKS = "[0-9]" * 6 + ".safetensors"
_BATCH = 32  # pictures in memory
_SAVE, _SECONDS = 256, 10.0  # pictures, or seconds, after which what was done is written
_CURABLE = "HEIC without pillow-heif"  # the fault of a picture that another installation can read
_REBUILD = "make it anew (--rebuild, or rebuild=True)"


class Text(str):
    """A query that is a text, even if a picture's file has this name."""


class Hit(NamedTuple):
    """A picture that was found.

    Attributes:
        path: of the file.
        score: cosine of its vector and the query's, -1 to 1.
    """

    path: Path
    score: float


class Report(NamedTuple):
    """The outcome of an update.

    Attributes:
        added: pictures that were not in the index.
        changed: pictures whose content is another one.
        removed: pictures that are gone.
        broken: path in the folder and fault of each picture that cannot be read, found now or before.
    """

    added: int
    changed: int
    removed: int
    broken: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _About:
    """`index.json`; the folder is an absolute path, or "..": the folder that the index lies in."""

    format: Literal["mcliplib-search 1"]
    folder: str
    dtype: Dtype
    model: Identity


class Index:
    """An index of the pictures in a folder and below; made by `build` or `open`.

    Hidden files and folders are left out, links to folders are not followed. A picture is known by size and time of
    change; where these differ, by its content. The index is a folder of chunks (`mcliplib.search.vectors`); one process
    at a time writes to it. From 100,000 pictures on it is searched with a graph, if the extra `search` is installed
    (`mcliplib.search.graph` says how many of the nearest pictures that finds), else exactly, a chunk at a time.

    Attributes:
        path: the index's own folder.
        folder: the pictures' folder.
        report: what the last update did; None where there was none.
    """

    def __init__(self, path: Path, about: _About, embedder: Embedder | None = None) -> None:
        self.path, self._about, self._given = path, about, embedder
        self.folder = Path(os.path.normpath(path / about.folder))
        self.report: Report | None = None
        self._opened: tuple[list[Chunk], graph.Graph | None] | None = None
        if embedder is not None:
            self._check(embedder.identity)

    @classmethod
    def build(
        cls,
        model: MobileCLIP | str | Path | None,
        folder: str | os.PathLike[str],
        *,
        path: str | os.PathLike[str] | None = None,
        dtype: Dtype | None = None,
        rebuild: bool = False,
        progress: Progress | None = None,
    ) -> "Index":
        """Index a folder, or bring its index up to date. Killed, the next call goes on where it was.

        Args:
            model: in eval mode, or a name (`search_model`). None: the index's own, of a new one the shipped student.
            folder: of pictures, at any depth.
            path: the index's folder; `.mcliplib-search` in `folder` if None.
            dtype: "float32", or "int8" with a step for each vector (a quarter of the bytes). None: as the index is, a
                new one float32.
            rebuild: drop what is in the index.
            progress: told what is done ("pictures", "graph"), how many are, and of how many.

        Raises:
            UserError: no such folder or model; the index is damaged, of another folder or model, or of another dtype.
            WriteError: the index cannot be written.
        """
        folder = Path(folder).expanduser().absolute()
        check_folder(folder)
        own = path is None
        path = folder / HOME if path is None else Path(path).expanduser().absolute()
        try:
            if rebuild or not (path / _ABOUT).exists():
                index = cls._new(path, ".." if own else str(folder), dtype or "float32", Embedder(model or STUDENT))
            else:
                index = cls.open(path, model)
            index.check_is_of(folder)
            if dtype not in (None, index._about.dtype):
                raise UserError(
                    f"{path}: its vectors are {index._about.dtype}, not {dtype}; leave dtype out, or {_REBUILD}"
                )
            index.update(progress)
        except WriteError as error:
            raise WriteError(
                f"{error}; --index PATH (path=PATH) puts the index elsewhere, --no-update asks one that is there"
            ) from error
        return index

    @classmethod
    def open(cls, path: str | os.PathLike[str], model: MobileCLIP | str | Path | None = None) -> "Index":
        """An index that was built before, as it is.

        Args:
            path: its folder, or the folder of pictures that it lies in.
            model: the one that made it; needed only if it was given to `build` in memory. None: loaded by its name
                when it is needed.

        Raises:
            MissingFileError: there is none.
            UserError: it is damaged, or was made by another model.
        """
        path = Path(path).expanduser().absolute()
        path = path / HOME if (path / HOME / _ABOUT).exists() else path
        if not (path / _ABOUT).exists():
            raise MissingFileError(f"{path}: holds no index; build one: mcliplib search FOLDER QUERY, or Index.build")
        try:
            about = fitted(read_json(path / _ABOUT, most=1 << 20), _About, str(path / _ABOUT))
        except UserError as error:
            raise UserError(f"{error}; this is no whole index: {_REBUILD}") from error
        return cls(path, about, None if model is None else Embedder(model))

    def check_is_of(self, folder: str | os.PathLike[str]) -> None:
        """Raises a UserError where this is the index of another folder of pictures."""
        wanted = Path(folder).expanduser().absolute()
        same = self.folder.exists() and wanted.exists() and self.folder.samefile(wanted)
        if not same and Path(os.path.normpath(wanted)) != self.folder:
            raise UserError(
                f"{self.path}: is the index of {self.folder}, not of {wanted}; name that folder, name another index "
                f"(--index), or {_REBUILD}"
            )

    @classmethod
    def _new(cls, path: Path, folder: str, dtype: Dtype, embedder: Embedder) -> "Index":
        about = _About("mcliplib-search 1", folder, dtype, embedder.identity)
        with locked(path):
            for one in (path / graph.COVERED, path / graph.FILE, *path.glob(_CHUNKS)):
                one.unlink(missing_ok=True)
            write_text(path / _ABOUT, json.dumps(asdict(about), indent=1) + "\n")
        return cls(path, about, embedder)

    def __len__(self) -> int:
        """Pictures with a vector."""
        return sum(len(chunk.vectors) for chunk in self._searched()[0])

    @property
    def model(self) -> Identity:
        """Which model made the vectors."""
        return self._about.model

    def update(self, progress: Progress | None = None) -> Report:
        """Index new and changed pictures, and drop those that are gone; the others are not touched.

        What cannot be read is remembered, and not tried again until it changes. Memory grows with the number of files,
        by some hundred bytes for each, not with their size.

        Args:
            progress: as in `build`.

        Raises:
            UserError: the folder is gone, or the index is damaged.
            WriteError: the index cannot be written.
        """
        check_folder(self.folder)
        with locked(self.path):
            self._opened = None
            files, unlisted = list_pictures(self.folder)
            rooms: dict[int, int] = {}
            changed, removed = set[str](), 0
            for path in sorted(self.path.glob(_CHUNKS)):
                chunk = self._chunk(path)
                before = chunk.entries()
                kept, gone = self._still_there(before, files, unlisted, changed)
                removed += gone
                rooms[chunk.number] = len(kept)
                if len(kept) < len(before) or any(map(operator.is_not, kept, before)):
                    self._write(chunk.number, kept)
            broken = self._add(list(files), rooms, progress)
            chunks, ways = self._searched()
            if graph.is_wanted(chunks) and ways is None:
                self._opened = chunks, graph.build_graph(self.path, chunks, progress)
        broken |= {path: fault for chunk in chunks for path, fault in chunk.broken()}
        new = len(files.keys() - changed - broken.keys())
        told = sorted((path, fault) for path, fault in broken.items() if fault)
        self.report = Report(new, len(changed), removed, tuple(told))
        return self.report

    def query(self, query: Query | Sequence[tuple[Query, float]], k: int = 12) -> list[Hit]:
        """The pictures that fit best, the best first.

        Args:
            query: a text, a PIL image, or a picture's path (a text is one if such a file exists, unless it is a
                `mcliplib.search.Text`); or several of them with weights, whose weighted sum is searched:
                `[("horse", 1.0), ("stripes", 1.0), ("snow", -0.5)]`.
            k: how many, at least 1.

        Raises:
            UserError: k is below 1, the query is empty or its parts cancel out, its picture cannot be read, or the
                index's model is missing or has changed.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        parts = [(query, 1.0)] if isinstance(query, str | os.PathLike | Image.Image) else list(query)
        if not parts:
            raise UserError("the query is empty; give a text or a picture")
        chunks, ways = self._searched()
        total = torch.stack([weight * self._feature(part) for part, weight in parts]).sum(dim=0)
        if not 1e-6 < (length := float(total.norm())) < math.inf:
            raise UserError("the parts of the query cancel each other out; change their weights")
        vector = (total / length).numpy()
        found = ways.nearest(chunks, vector, k) if ways else nearest(chunks, vector, k)
        return [Hit(self.folder / chunks[one.chunk].paths[one.row], one.score) for one in found]

    @property
    def _embedder(self) -> Embedder:
        if self._given is None:
            if self.model.source is None:
                raise UserError(
                    f"{self.path}: was made by {self.model}, given in memory; pass it: open(path, model=...)"
                )
            embedder = Embedder(self.model.source)
            self._check(embedder.identity)
            self._given = embedder
        return self._given

    def _check(self, asked: Identity) -> None:
        if replace(asked, source=None) != replace(self.model, source=None):
            raise UserError(
                f"{self.path}: was made by {self.model}, and is asked with {asked}: vectors of two models cannot be "
                f"compared; ask with the first one, name another index (--index), or {_REBUILD}"
            )

    def _feature(self, part: Query) -> Tensor:
        if isinstance(part, Image.Image):
            return self._embedder.images([part])[0]
        if isinstance(part, Text) or (isinstance(part, str) and not is_picture_file(part)):
            return self._embedder.text(part)
        image = self._embedder.open(read_bytes(Path(part).expanduser(), MAX_MEMBER))
        return self._embedder.images([image])[0]

    def _searched(self) -> tuple[list[Chunk], graph.Graph | None]:
        if self._opened is None:
            chunks = list[Chunk]()
            for path in sorted(self.path.glob(_CHUNKS)):
                with contextlib.suppress(MissingFileError):  # an update has just emptied it
                    chunks.append(self._chunk(path))
            ways = graph.open_graph(self.path) if graph.is_wanted(chunks) else None
            self._opened = chunks, ways if ways and ways.is_current(chunks) else None
        return self._opened

    def _chunk(self, path: Path) -> Chunk:
        return Chunk(path, self.model.sha256, self.model.dim, self._about.dtype)

    def _write(self, number: int, entries: Sequence[Entry]) -> None:
        path = self.path / f"{number:06d}.safetensors"
        write_chunk(path, entries, self.model.sha256, self.model.dim, self._about.dtype)

    def _still_there(
        self, entries: Sequence[Entry], files: dict[str, State], unlisted: tuple[str, ...], changed: set[str]
    ) -> tuple[list[Entry], int]:
        """Entries whose files are as they were, and how many are gone; `files` keeps those that must be read."""
        kept, gone = list[Entry](), 0
        for entry in entries:
            now = files.pop(entry.path, None)
            if now is None:
                gone += not (there := entry.path.startswith(unlisted))
                kept += [entry] if there else []
            elif now == (entry.size, entry.mtime_ns):
                kept.append(entry)
            elif now.size == entry.size and sha256_of(self.folder / entry.path) == entry.sha256:
                time_of = settled(now.mtime_ns)
                kept.append(entry if time_of == entry.mtime_ns else entry._replace(mtime_ns=time_of))
            else:
                files[entry.path] = now
                changed.add(entry.path)
        return kept, gone

    def _add(self, names: Sequence[str], rooms: dict[int, int], progress: Progress | None) -> dict[str, str]:
        """Index these files; gives those that are to be tried again, with their faults, "" for what is gone."""
        fresh, again, saved = list[Entry](), dict[str, str](), time.monotonic()
        embedder = self._embedder if names else None  # where nothing is new, no model is loaded
        with ThreadPoolExecutor(usable_cores()) as pool:
            for start in range(0, len(names), _BATCH):
                assert embedder is not None
                read = list(pool.map(lambda name: self._read(name, embedder), names[start : start + _BATCH]))
                again |= {one.entry.path: one.entry.fault for one in read if one.again}
                fresh += self._embedded([one for one in read if not one.again], embedder)
                if start + _BATCH >= len(names) or len(fresh) >= _SAVE or time.monotonic() - saved > _SECONDS:
                    self._save(fresh, rooms)
                    fresh, saved = [], time.monotonic()
                if progress:
                    progress("pictures", min(start + _BATCH, len(names)), len(names))
        return again

    def _read(self, name: str, embedder: Embedder) -> "_Read":
        path, size, mtime, digest = self.folder / name, 0, 0, bytes(32)
        try:
            before = path.stat()  # of what is there now or was: then the next update reads it again
            content = read_bytes(path, MAX_MEMBER)
            size, mtime, digest = len(content), settled(before.st_mtime_ns), hashlib.sha256(content).digest()
            return _Read(Entry(name, size, mtime, digest, None), embedder.open(content))
        except (FileNotFoundError, NotADirectoryError):  # gone since it was listed
            return _Read(Entry(name, 0, 0, digest, None), None, again=True)
        except PictureError as error:
            return _Read(Entry(name, size, mtime, digest, None, 1.0, error.reason), None, error.reason == _CURABLE)
        except (OSError, UserError) as error:
            return _Read(Entry(name, 0, 0, digest, None, 1.0, first_line(error.__cause__ or error)), None, again=True)

    def _embedded(self, read: Sequence["_Read"], embedder: Embedder) -> list[Entry]:
        images = [one.image for one in read if one.image is not None]
        entries = [one.entry for one in read if one.image is None]
        if images:
            vectors = stored(np.asarray(embedder.images(images)), self._about.dtype)
            named = [one.entry for one in read if one.image is not None]
            entries += [one._replace(vector=row, step=step) for one, (row, step) in zip(named, vectors, strict=True)]
        return entries

    def _save(self, fresh: list[Entry], rooms: dict[int, int]) -> None:
        """Write new entries where there is room, each chunk's in one step."""
        while fresh:
            free = next((number for number in sorted(rooms) if rooms[number] < CHUNK), max(rooms, default=-1) + 1)
            path = self.path / f"{free:06d}.safetensors"
            there = self._chunk(path).entries() if rooms.get(free) else []
            taken, fresh = fresh[: CHUNK - len(there)], fresh[CHUNK - len(there) :]
            self._write(free, [*there, *taken])
            rooms[free] = len(there) + len(taken)


class _Read(NamedTuple):
    """A file that was read; `again`: the next update has to try it anew."""

    entry: Entry
    image: Image.Image | None
    again: bool = False
