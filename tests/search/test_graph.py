"""The graph of large indexes: how much of the exact answer it finds, and that it never gives an old one."""

from pathlib import Path

import numpy as np
import pytest

import mcliplib.search.graph as graph_module
from mcliplab.benchmarks.search import simulated
from mcliplib.checkpoints import load_model
from mcliplib.data import load_samples
from mcliplib.evaluate import ModelEncoder
from mcliplib.search import Index
from mcliplib.search.graph import COVERED, FILE, Graph, build_graph, is_wanted, open_graph
from mcliplib.search.vectors import Chunk, Entry, nearest, stored, write_chunk

DIM = load_model("student").config.embed_dim
SIZE = 1024


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """The student's vectors of some pictures, and of their captions."""
    samples = load_samples("gcompris-animals", side=2 * load_model("student").config.image.image_size)
    encoder = ModelEncoder(load_model("student"))
    texts = encoder.encode_texts([one.caption for one in samples])
    return encoder.encode_images([one.image for one in samples]).numpy(), texts.numpy()


def chunk(folder: Path, number: int, rows: np.ndarray, dtype: str = "float32") -> Chunk:
    kept = stored(rows, dtype)
    entries = [Entry(f"{number}-{i}.png", 1, 2, bytes(32), row, step) for i, (row, step) in enumerate(kept)]
    path = folder / f"{number:06d}.safetensors"
    write_chunk(path, entries, "model", DIM, dtype)
    return Chunk(path, "model", DIM, dtype)


def recall(graph: Graph, chunks: list[Chunk], queries: np.ndarray, k: int = 10) -> float:
    shares = []
    for query in queries:
        exact = {(one.chunk, one.row) for one in nearest(chunks, query, k)}
        found = graph.nearest(chunks, query, k)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        shares.append(len(exact & {(one.chunk, one.row) for one in found}) / k)
    return float(np.mean(shares))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_nearly_all_of_the_nearest_are_found(tmp_path, real, dtype):
    pictures, texts = real
    rows = simulated(pictures, 8 * SIZE, seed=0)
    chunks = [chunk(tmp_path, at, rows[at * SIZE : (at + 1) * SIZE], dtype) for at in range(8)]
    build_graph(tmp_path, chunks)
    graph = open_graph(tmp_path)
    assert graph is not None
    assert graph.is_current(chunks)
    assert recall(graph, chunks, pictures[:100]) >= 0.98
    assert recall(graph, chunks, texts[:100]) >= 0.98
    exact = {(one.chunk, one.row): one.score for one in nearest(chunks, rows[5], 5)}
    found = {(one.chunk, one.row): one.score for one in graph.nearest(chunks, rows[5], 5)}
    assert found == pytest.approx(exact, abs=1e-5), "the scores are the exact ones"


def test_changed_chunks_are_searched_as_they_are_now(tmp_path, real):
    rows = simulated(real[0], 12 * SIZE, seed=0)
    before = [chunk(tmp_path, at, rows[at * SIZE : (at + 1) * SIZE]) for at in range(12)]
    graph = build_graph(tmp_path, before)
    query, chunks = rows[3 * SIZE + 7], list(before)
    chunks[3] = chunk(tmp_path, 3, -rows[3 * SIZE : 4 * SIZE])  # all of its pictures are others
    assert graph.is_current(chunks), "a twelfth has changed"
    best = graph.nearest(chunks, query, 10)[0]
    assert best.chunk != 3, "not the old one"
    assert best.score < 0.9999
    assert graph.nearest(chunks, -query, 1)[0] == pytest.approx((1.0, 3, 7), abs=1e-5)
    assert recall(graph, chunks, real[1][:50]) >= 0.95
    chunks.pop(5)
    assert not graph.is_current(chunks), "a sixth has changed"
    assert graph.nearest(chunks, -query, 1)[0] == pytest.approx((1.0, 3, 7), abs=1e-5)
    assert graph.is_current(before)


def test_it_is_exact_where_the_near_ones_are_gone(tmp_path, real):
    rows = simulated(real[0], 4 * SIZE, seed=0)
    chunks = [chunk(tmp_path, at, rows[at * SIZE : (at + 1) * SIZE] * (-1 if at == 3 else 1)) for at in range(4)]
    graph = build_graph(tmp_path, chunks)
    assert recall(graph, chunks[3:], rows[:20]) == 1.0


@pytest.mark.parametrize("damage", ["gone", "cut", "foreign", "list", "list of another"])
def test_a_damaged_graph_is_not_used(tmp_path, damage):
    rows = simulated(np.eye(DIM, dtype=np.float32), SIZE, seed=0)
    build_graph(tmp_path, [chunk(tmp_path, 0, rows)])
    file, covered = tmp_path / FILE, tmp_path / COVERED
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "foreign":
        file.write_bytes(b"\xff" * 4096)
    elif damage == "list":
        covered.write_text('{"crc32": 3, "chunks": [[1]]}')
    else:
        covered.write_text(covered.read_text().replace("crc32", "crc"))
    assert open_graph(tmp_path) is None


def test_an_index_uses_it_from_some_size_on_and_keeps_it_current(photos, contents, put, monkeypatch, tmp_path):
    exact = Index.build("student", photos, path=tmp_path / "exact").query("a bird", k=20)
    monkeypatch.setattr(graph_module, "LEAST", 10)
    told = []
    index = Index.build("student", photos, progress=lambda *one: told.append(one))
    assert told[-1] == ("graph", 1, 1)
    assert (index.path / FILE).exists()
    before = (index.path / FILE).stat().st_ino
    for one in (index, Index.open(photos)):
        hits = one.query("a bird", k=20)
        assert [hit.path.name for hit in hits] == [hit.path.name for hit in exact]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in exact], abs=1e-5)
    assert index.update() == (0, 0, 0, ())
    assert (index.path / FILE).stat().st_ino == before, "nothing had changed"
    put(photos / "new.webp", contents[20])
    index.update()
    assert (index.path / FILE).stat().st_ino != before
    assert index.query(photos / "new.webp", k=1)[0].path.name == "new.webp"


def test_without_the_extra_search_is_exact(tmp_path, monkeypatch):
    import importlib.util
    import sys

    chunks = [chunk(tmp_path, 0, simulated(np.eye(DIM, dtype=np.float32), SIZE, seed=0))]
    monkeypatch.setattr(graph_module, "LEAST", 10)
    assert is_wanted(chunks)
    build_graph(tmp_path, chunks)
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not is_wanted(chunks)
    assert open_graph(tmp_path) is None
