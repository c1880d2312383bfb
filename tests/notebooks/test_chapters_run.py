"""Every chapter runs alone: its own kernel, its own folder. How long it takes is on the status page, not a test.

What ran is kept for the tests of the built book, which run only the chapters that are not there.
"""

import shutil
from pathlib import Path

import papermill
import pytest

from tests.book.book_pages import keep_executed

ROOT = Path(__file__).parents[2]
FAILED = ROOT / "tests/_failed"
HANGING = 600  # seconds for a cell


@pytest.mark.timeout(3 * HANGING)
@pytest.mark.parametrize("notebook", sorted((ROOT / "book").glob("*.ipynb")), ids=lambda path: path.stem)
def test_chapter(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = tmp_path / "results"
    shutil.copytree(ROOT / "data/results", records) if (ROOT / "data/results").is_dir() else records.mkdir()
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(records))
    output = tmp_path / notebook.name
    try:
        papermill.execute_notebook(
            notebook,
            output,
            cwd=tmp_path,
            kernel_name="python3",
            execution_timeout=HANGING,
            progress_bar=False,
        )
    except Exception:
        FAILED.mkdir(exist_ok=True)
        shutil.copy(output, FAILED)
        raise
    keep_executed(output)
