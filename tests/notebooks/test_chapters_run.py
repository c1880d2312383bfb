"""Every chapter runs alone: its own kernel, its own folder, within its time."""

import shutil
import time
from pathlib import Path

import papermill
import pytest

ROOT = Path(__file__).parents[2]
FAILED = ROOT / "tests/_failed"
SECONDS = 60  # on two quiet cores
NOISE = 1.5  # what the machine of the day may add


@pytest.mark.parametrize("notebook", sorted((ROOT / "book").glob("*.ipynb")), ids=lambda path: path.stem)
def test_chapter(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "results"
    shutil.copytree(ROOT / "data/results", records) if (ROOT / "data/results").is_dir() else records.mkdir()
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(records))
    output = tmp_path / notebook.name
    start = time.perf_counter()
    try:
        papermill.execute_notebook(
            notebook,
            output,
            parameters={"fast": True},
            cwd=tmp_path,
            kernel_name="python3",
            execution_timeout=2 * SECONDS,
            progress_bar=False,
        )
    except Exception:
        FAILED.mkdir(exist_ok=True)
        shutil.copy(output, FAILED)
        raise
    seconds = time.perf_counter() - start
    assert seconds < NOISE * SECONDS, f"{seconds:.0f} s: what a chapter computes in fast mode must fit"
