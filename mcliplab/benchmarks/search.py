"""How well the student searches, and how fast: pictures indexed in a second, queries of up to a million vectors.

The pictures are real, the many vectors are simulated after theirs. Each way of asking runs in a process of its own, of
which the operating system tells the memory.
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
from jaxtyping import Float

from mcliplab.benchmarks.pictures import web_jpeg
from mcliplib.checkpoints import load_model
from mcliplib.data import list_datasets, load_samples, shard_paths
from mcliplib.data.export_folder import LIST, export_folder
from mcliplib.data.reader import raw_samples
from mcliplib.evaluate import ModelEncoder
from mcliplib.search import Index
from mcliplib.search.graph import FILE, build_graph, open_graph
from mcliplib.search.vectors import CHUNK, Chunk, Dtype, Entry, nearest, stored, write_chunk

Way = Literal["float32", "int8", "graph"]
WAYS: tuple[Way, ...] = ("float32", "int8", "graph")
K = 10
_MODEL = "student"
_BLEND, _NOISE = 0.5, 0.3  # share of the second picture at most; length of what is added
_BASES = 4000  # pictures that vectors are simulated after
_LEAST_GRAPH = 10_000


def simulated(bases: Float[np.ndarray, "b d"], count: int, seed: int) -> Float[np.ndarray, "n d"]:
    """Vectors as many more pictures would have them: each a blend of two real ones, and some noise.

    Args:
        bases: of real pictures, of length 1.
        count: how many.
        seed: of the choice.

    Returns:
        Of length 1.
    """
    generator = np.random.default_rng(seed)
    one, other = (bases[generator.integers(len(bases), size=count)] for _ in range(2))
    share = _BLEND * generator.random((count, 1), np.float32)
    noise = generator.standard_normal(one.shape, np.float32) * np.float32(_NOISE / bases.shape[1] ** 0.5)
    rows = (1 - share) * one + share * other + noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Asked(NamedTuple):
    """Queries of one way."""

    found: list[list[tuple[int, int]]]  # chunk and row of what each query found
    milliseconds: list[float]
    open_seconds: float
    peak_mb: float  # resident, with the files' pages that are mapped
    private_mb: float  # resident at the end, without them


def measure_finding(folder: Path, name: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Ask an index of a set's pictures, as files, for each of its captions.

    Args:
        folder: to write to.
        name: of an evaluation set.
        progress: told the result.

    Returns:
        How many captions were asked for, and the share of those with a right picture among the first `K`.
    """
    photos = export_folder(name, folder)
    of_caption: dict[str, set[str]] = {}
    for line in (photos / LIST).read_text(encoding="utf-8").splitlines():
        picture = json.loads(line)
        of_caption.setdefault(picture["caption"], set()).add(picture["file_name"])
    index = Index.build(_MODEL, photos)
    found = [any(hit.path.name in files for hit in index.query(caption, k=K)) for caption, files in of_caption.items()]
    progress(f"{name}: a right picture is among the first {K} for {np.mean(found):.1%} of {len(found)} captions")
    return {"captions": len(found), "recall_at_10": float(np.mean(found))}


def measure_indexing(
    folder: Path, count: int, progress: Callable[[str], None], *, model: str = _MODEL, side: int | None = None
) -> dict[str, Any]:
    """Index real pictures and ask for one; then again, where nothing has changed.

    Args:
        folder: to write to.
        count: pictures at most.
        progress: told each result.
        model: as `mcliplib search --model` takes it.
        side: pixels of the longer side, to which the pictures are enlarged as JPEGs; as they are stored unless given.
    """
    photos = folder / f"photos-{side}"
    photos.mkdir(parents=True)
    for at, (key, content) in zip(range(count), _pictures(), strict=False):
        path = photos / f"{at:06d}-{key[:80]}.{'jpg' if side else 'webp'}"
        path.write_bytes(web_jpeg(content, side) if side else content)
    begun = time.perf_counter()
    index = Index.build(model, photos)
    first = time.perf_counter() - begun
    assert len(index.query("a red flag", k=K)) == min(K, len(index))
    time.sleep(2.5)  # until no file is so new that it is read again
    index.update()
    begun = time.perf_counter()
    index.update()
    again = time.perf_counter() - begun
    size = sum(path.stat().st_size for path in index.path.iterdir())
    progress(f"{model}: {len(index):,} pictures indexed in {first:.1f} s, found unchanged in {again:.2f} s")
    return {
        "model": model,
        "pictures": len(index),
        "pictures_per_second": len(index) / first,
        "unchanged_per_second": len(index) / again,
        "bytes_per_picture": size / len(index),
    }


def _pictures() -> Iterator[tuple[str, bytes]]:
    for name in list_datasets("eval"):
        for path in shard_paths(name):
            for key, members in raw_samples(str(path), {}):
                yield key, members["webp"]


def measure_queries(folder: Path, size: int, queries: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Ask an index of so many simulated vectors, in each way.

    Args:
        folder: to write to; a million vectors take 1.5 GB.
        size: vectors.
        queries: half of them texts, half pictures.
        progress: told each result.
    """
    pictures, texts = _real()
    asked = np.concatenate([texts[: queries // 2], pictures[: queries - queries // 2]])
    values: dict[str, Any] = {}
    exact: list[list[tuple[int, int]]] = []
    for way in WAYS if size >= _LEAST_GRAPH else WAYS[:2]:
        dtype: Dtype = "int8" if way == "int8" else "float32"
        place, built = folder / f"{dtype}-{size}", {}
        if not place.exists():
            _write(place, pictures, size, dtype)
        if way == "graph":
            begun = time.perf_counter()
            build_graph(place, chunks_in(place, pictures.shape[1], dtype))
            built = {"build_seconds": time.perf_counter() - begun}
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            got = Asked(*pool.apply(_ask, (place, asked, way)))
        exact = exact or got.found
        shares = [len({*one} & {*best}) / len(best) for one, best in zip(got.found, exact, strict=True)]
        files = [path for path in place.iterdir() if way == "graph" or path.name != FILE]
        values[way] = built | {
            "median_ms": float(np.median(got.milliseconds)),
            "p90_ms": float(np.percentile(got.milliseconds, 90)),
            "open_seconds": got.open_seconds,
            "peak_mb": got.peak_mb,
            "private_mb": got.private_mb,
            "disk_mb": sum(path.stat().st_size for path in files) / 1e6,
            "recall_texts": float(np.mean(shares[: queries // 2])),
            "recall_pictures": float(np.mean(shares[queries // 2 :])),
        }
        progress(f"{size:,} {way}: " + ", ".join(f"{name} {value:.3f}" for name, value in values[way].items()))
    return values


def chunks_in(folder: Path, dim: int, dtype: Dtype) -> list[Chunk]:
    """The chunks that `measure_queries` wrote."""
    return [Chunk(path, _MODEL, dim, dtype) for path in sorted(folder.glob("0*.safetensors"))]


def _real() -> tuple[Float[np.ndarray, "b d"], Float[np.ndarray, "t d"]]:
    """Vectors of real pictures, and of captions, in an order by chance."""
    encoder, generator = ModelEncoder(load_model(_MODEL)), np.random.default_rng(0)
    samples = load_samples(list_datasets("eval"), side=2 * encoder.model.config.image.image_size)
    chosen = [samples[at] for at in generator.permutation(len(samples))[:_BASES]]
    texts = encoder.encode_texts(list(dict.fromkeys(one.caption for one in chosen)))
    return np.asarray(encoder.encode_images([one.image for one in chosen])), np.asarray(texts)


def _write(folder: Path, bases: Float[np.ndarray, "b d"], size: int, dtype: Dtype) -> None:
    for number, start in enumerate(range(0, size, CHUNK)):
        kept = stored(simulated(bases, min(CHUNK, size - start), seed=number), dtype)
        entries = [
            Entry(f"photos/{start + at:09d}.jpg", 1, 1, bytes(32), row, step) for at, (row, step) in enumerate(kept)
        ]
        write_chunk(folder / f"{number:06d}.safetensors", entries, _MODEL, bases.shape[1], dtype)


def _ask(folder: Path, queries: Float[np.ndarray, "q d"], way: Way) -> tuple[Any, ...]:
    begun = time.perf_counter()
    chunks = chunks_in(folder, queries.shape[1], "int8" if way == "int8" else "float32")
    graph = open_graph(folder) if way == "graph" else None
    opened, found, times = time.perf_counter() - begun, [], []
    for query in queries:
        begun = time.perf_counter()
        hits = graph.nearest(chunks, query, K) if graph else nearest(chunks, query, K)
        times.append(1000 * (time.perf_counter() - begun))
        found.append([(one.chunk, one.row) for one in hits])
    memory = psutil.Process().memory_info()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    return Asked(found, times, opened, peak / 1e6, (memory.rss - memory.shared) / 1e6)
