"""The graph that large indexes are searched with (HNSW, 1603.09320), by usearch: the optional extra `search`.

It holds the vectors as int8, and asks for four times as many as are wanted, which then get their exact cosines. The
record `search` says how many of the ten nearest it finds among a hundred thousand and a million vectors simulated after
the student's: pictures nearly all, texts, which lie apart from all pictures, fewer (`mcliplib benchmark search`). A
chunk that has changed since is searched exactly, so that an answer is never an old one; the graph is built anew where
this becomes a tenth of the index. It is only ever a copy: where it is damaged, it is not used.
"""

import importlib.util
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mcliplib.checkpoints.int8 import quantize_rows
from mcliplib.errors import UserError
from mcliplib.files import fitted, read_json, replacing, write_text
from mcliplib.search.vectors import CHUNK, Chunk, Found, nearest, rescored
from mcliplib.threads import usable_cores

Progress = Callable[[str, int, int], None]  # what, done, of how many
LEAST = 100_000  # pictures; fewer are searched in milliseconds without it
FILE, COVERED = "graph.usearch", "graph.json"
_MOST_CHANGED = 0.1  # of the pictures, before it is built anew
_MORE = 4  # candidates for each one that is wanted
_LINKS, _WIDTH = 16, 128  # of a node; candidates when it is put in
_WIDTH_ASKED = 256  # candidates of a query: texts lie apart from the pictures, and miss some of the nearest with fewer
_BLOCK = 1 << 24  # bytes


class Graph:
    """A graph of the chunks of an index, or of some of them.

    Args:
        graph: usearch's.
        covered: number -> checksum of the chunks that are in it.
    """

    def __init__(self, graph: Any, covered: dict[int, int]) -> None:
        graph.expansion_search = _WIDTH_ASKED
        self._graph, self._covered = graph, covered

    def covers(self, chunk: Chunk) -> bool:
        """Whether the chunk is in it, as it is now."""
        return self._covered.get(chunk.number) == chunk.crc

    def is_current(self, chunks: Sequence[Chunk]) -> bool:
        """Whether it covers enough of the chunks, and little else."""
        total = sum(len(chunk.vectors) for chunk in chunks)
        now = sum(len(chunk.vectors) for chunk in chunks if self.covers(chunk))
        return max(total, len(self._graph)) - now <= _MOST_CHANGED * total

    def nearest(self, chunks: Sequence[Chunk], vector: Float[np.ndarray, " d"], k: int) -> list[Found]:
        """As `vectors.nearest`, of nearly all of the nearest."""
        here = {chunk.number: at for at, chunk in enumerate(chunks) if self.covers(chunk)}
        query = quantize_rows(vector[None])[0][0]
        keys = np.asarray(self._graph.search(query, min(len(self._graph), _MORE * k)).keys).astype(np.int64)
        places = [(here[key // CHUNK], key % CHUNK) for key in keys.tolist() if key // CHUNK in here]
        if len(places) < k:  # what is near is gone
            return nearest(chunks, vector, k)
        found = rescored(chunks, np.array(places, np.int64), vector, k)
        rest = [at for at, chunk in enumerate(chunks) if not self.covers(chunk)]
        exact = nearest([chunks[at] for at in rest], vector, k)
        found += [one._replace(chunk=rest[one.chunk]) for one in exact]
        return sorted(found, key=lambda one: -one.score)[:k]


def is_wanted(chunks: Sequence[Chunk]) -> bool:
    """Whether the index is large enough, and usearch installed."""
    return sum(len(chunk.vectors) for chunk in chunks) >= LEAST and importlib.util.find_spec("usearch") is not None


def build_graph(folder: Path, chunks: Sequence[Chunk], progress: Progress | None = None) -> Graph:
    """Build the graph of these chunks, and write it into the folder; takes minutes for a million vectors.

    Args:
        folder: of the index.
        chunks: all of it.
        progress: told "graph", the number of chunks that are in it, and how many there are.

    Raises:
        WriteError: it cannot be written.
    """
    from usearch.index import Index

    graph = Index(ndim=chunks[0].vectors.shape[1], metric="cos", dtype="i8", connectivity=_LINKS, expansion_add=_WIDTH)
    for done, chunk in enumerate(chunks, 1):
        rows = chunk.vectors if chunk.vectors.dtype == np.int8 else quantize_rows(chunk.vectors)[0]
        keys = chunk.number * CHUNK + np.arange(len(rows), dtype=np.uint64)
        graph.add(keys.astype(np.uint64), np.ascontiguousarray(rows), threads=usable_cores())
        if progress:
            progress("graph", done, len(chunks))
    covered = {chunk.number: chunk.crc for chunk in chunks}
    with replacing(folder / FILE) as temporary:
        graph.save(str(temporary))
        crc = _crc(temporary)
    about = {"crc32": crc, "chunks": [[number, crc] for number, crc in covered.items()]}
    write_text(folder / COVERED, json.dumps(about) + "\n")
    return Graph(graph, covered)


def open_graph(folder: Path) -> Graph | None:
    """The graph in the folder, mapped into memory; None where there is none that is whole."""
    try:
        from usearch.index import Index

        about = fitted(read_json(folder / COVERED), dict[str, Any], COVERED)
        covered = dict(fitted(about.get("chunks"), list[tuple[int, int]], COVERED))
        if about.get("crc32") != _crc(folder / FILE):  # usearch believes what it reads
            return None
        return Graph(Index.restore(str(folder / FILE), view=True), covered)
    except (ImportError, OSError, UserError):
        return None


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
