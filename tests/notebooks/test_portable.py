"""The proof that chapters hold on other machines can itself be trusted: it measures, and it can fail."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.notebooks import portable

PARAMETERS = 'fast: bool = True\nseed: int = 0\nthreads: int = 2\ndtype: str = "float32"'


def chapter(folder: Path, asserts: str) -> Path:
    cells = [
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell("import os\nvalue = 0.5 + seed / 10"),
        new_code_cell(asserts, metadata={"tags": ["remove-cell"]}),
    ]
    notebook = new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "chapter.ipynb")
    return folder / "chapter.ipynb"


def execute(source: str, **names: object) -> list[dict[str, object]]:
    """Run a measured cell as the notebook would; its measurements."""
    scope = dict(names)
    exec(portable.MEASURED + portable.measured_source(source), scope)
    return scope["_measured"]  # type: ignore[return-value]


def test_every_comparison_of_a_chain_is_measured_with_its_slack() -> None:
    found = execute("for x in (1, 2):\n    assert x < 4 <= 5", x=0)
    assert [(one["left"], one["right"]) for one in found] == [(1, 4), (4, 5), (2, 4), (4, 5)]
    assert [round(float(str(one["slack"])), 2) for one in found] == [0.75, 0.2, 0.5, 0.2]
    assert {one["assert"] for one in found} == {"x < 4 <= 5"}


def test_an_operand_is_computed_once_and_other_assertions_stay() -> None:
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    execute("assert 0 < count() < 5\nassert count() == 2", count=count)
    assert len(calls) == 2
    with pytest.raises(AssertionError):
        execute("assert {1} == {2}")


def test_a_failing_comparison_fails_and_is_measured() -> None:
    with pytest.raises(AssertionError, match=r"0\.08 > 0\.95"):
        execute("assert 0.08 > 0.95")


def test_a_chapter_is_run_with_what_the_variant_says(tmp_path: Path) -> None:
    asserts = "assert 0.4 < value < 0.8\nassert os.environ.get('ATEN_CPU_CAPABILITY') == 'default'"
    path = chapter(tmp_path, asserts)
    environment = {"ATEN_CPU_CAPABILITY": "default"}
    held = portable.run(path, portable.Variant("seed 2", {"seed": 2}, environment))
    failed = portable.run(path, portable.Variant("seed 4", {"seed": 4}, environment))
    assert held.error == ""
    assert [round(one["left"], 1) for one in held.measured] == [0.4, 0.7]
    assert "value < 0.8" in failed.error
    summary = portable.summary([held, failed])
    assert (summary["runs"], list(summary["failed"])) == (2, ["seed 4"])
    assert json.dumps(summary)


def test_every_chapter_can_be_run_in_every_way() -> None:
    for path in (portable.ROOT / "book").glob("*.ipynb"):
        names = portable.parameters_of(nbformat.read(path, as_version=4))
        found = [one.name for one in portable.variants(names)]
        assert found[:6] == [*(f"seed {seed}" for seed in range(5)), f"threads {3 - names['threads']}"]
