"""What must hold for any index and any history of its folder."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mcliplib.search.index as index_module
from mcliplib.checkpoints import load_model
from mcliplib.search import Index, vectors
from mcliplib.search.vectors import Chunk, Entry, nearest, stored, write_chunk


def chunks_of(folder: Path, rows: np.ndarray, size: int, dtype: vectors.Dtype) -> list[Chunk]:
    made = []
    for number, start in enumerate(range(0, len(rows), size)):
        kept = stored(rows[start : start + size], dtype)
        entries = [Entry(f"{start + i}.png", 1, 2, bytes(32), row, step) for i, (row, step) in enumerate(kept)]
        if number % 2:
            entries.insert(0, Entry(f"broken{number}.png", 1, 2, bytes(32), None, 1.0, "corrupt image"))
        write_chunk(folder / f"{number:06d}.safetensors", entries, "model", rows.shape[1], dtype)
        made.append(Chunk(folder / f"{number:06d}.safetensors", "model", rows.shape[1], dtype))
    return made


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 20), st.integers(1, 70), st.sampled_from([2, 7, 192])
)
def test_what_is_found_is_what_brute_force_finds(seed: int, count: int, size: int, k: int, dim: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = rows[0] if seed % 2 else generator.standard_normal(dim, np.float32)
    query = query / np.linalg.norm(query)
    with tempfile.TemporaryDirectory() as folder:
        chunks = chunks_of(Path(folder), rows, size, "float32")
        found = nearest(chunks, query, k)
        scores = rows @ query
        assert [one.score for one in found] == pytest.approx(np.sort(scores)[::-1][:k].tolist(), abs=1e-6)
        for one in found:
            name = chunks[one.chunk].paths[one.row]
            assert one.score == pytest.approx(float(scores[int(name.removesuffix(".png"))]), abs=1e-6)
        assert len({(one.chunk, one.row) for one in found}) == min(k, count)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_int8_is_off_by_half_a_step_at_most(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, 32), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        (chunk,) = chunks_of(Path(folder), rows, 64, "int8")
        assert chunk.vectors.dtype == np.int8
        bound = np.abs(rows).max(axis=1) / 127 / 2 * np.abs(rows[0]).sum() + 1e-6
        assert (np.abs(chunk.scores(rows[0]) - rows @ rows[0]) <= bound).all()


NAMES = ("a.webp", "b.webp", "deep/c.webp", "deep/er/d.webp", "e\n.webp")
Change = tuple[str, int | None]  # a file, and the picture that it becomes; None removes it
CHANGES = st.lists(
    st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.integers(0, 5))), max_size=4), max_size=4
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES)
def test_after_any_changes_an_update_equals_a_fresh_build(contents, monkeypatch, rounds: list[list[Change]]) -> None:
    """With chunks of three pictures, of which one is broken: the sixth content."""
    monkeypatch.setattr(index_module, "CHUNK", 3)
    model, root = load_model("student"), Path(tempfile.mkdtemp())
    try:
        folder = root / "photos"
        (folder / "deep/er").mkdir(parents=True)
        index = Index.build(model, folder)
        for number, changes in enumerate(rounds):
            for name, content in changes:
                path = folder / name
                path.unlink(missing_ok=True)
                if content is not None:
                    path.write_bytes(contents[content] if content < 5 else b"broken")
                    os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
            report = index.update()
        fresh = Index.build(model, folder, path=root / "fresh")
        assert len(index) == len(fresh)
        if rounds:
            assert report.broken == fresh.report.broken
        one, other = ({hit.path: hit.score for hit in which.query("a bird", k=9)} for which in (index, fresh))
        assert one == pytest.approx(other, abs=1e-5)
        states = [
            sorted((e.path, e.size, e.mtime_ns, e.sha256, e.fault) for c in which._searched()[0] for e in c.entries())
            for which in (index, fresh)
        ]
        assert states[0] == states[1]
        assert all(len(chunk) <= 3 for chunk in index._searched()[0])
    finally:
        shutil.rmtree(root)
