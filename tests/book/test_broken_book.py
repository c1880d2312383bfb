"""What must stop a build does stop it. Tiny books with the real configuration."""

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from book_pages import BOOK, ROOT, build
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mcliplib import results

RESULTS = "---\ndescription: Records.\n---\n(results)=\n# Records\n\n```{record} tiny\nA tiny run.\n```\n"
INTRO = "---\ndescription: A tiny book.\n---\n# Tiny\n\n{text}\n\n```{{execution-times}}\n```\n"


def tiny_book(folder: Path, text: str = "", code: str = "1 + 1") -> Path:
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(BOOK / "_ext", folder / "book/_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(BOOK / "_static", folder / "book/_static", ignore=shutil.ignore_patterns("vendor"))
    shutil.copy(BOOK / "references.bib", folder / "book")
    chapters = [{"file": "book/chapter"}, {"file": "book/results"}]
    toc = {"format": "jb-book", "root": "book/intro", "parts": [{"caption": "x", "chapters": chapters}]}
    (folder / "_toc.yml").write_text(json.dumps(toc))
    (folder / "book/intro.md").write_text(INTRO.format(text=text))
    (folder / "book/results.md").write_text(RESULTS)
    notebook = new_notebook(cells=[new_markdown_cell("# Chapter"), new_code_cell(code)])
    notebook.metadata.update(description="A chapter.", kernelspec={"name": "python3", "display_name": "Python 3"})
    nbformat.write(notebook, folder / "book/chapter.ipynb")
    values = {"retrieval": {"r1": 0.187}}
    rest = {"unit": "fraction", "n": 10, "seeds": [0], "command": "mcliplib evaluate", "seconds": 2.0}
    results.record("tiny", values, **rest, directory=folder / "records")
    return folder


def build_tiny(folder: Path) -> tuple[int, str]:
    run = build(folder, folder, **{**os.environ, "MCLIPLIB_RESULTS": str(folder / "records")})
    return run.returncode, run.stdout + run.stderr


def test_a_good_book_builds_and_shows_its_records(tmp_path: Path) -> None:
    status, output = build_tiny(tiny_book(tmp_path, "We reach {result}`tiny.retrieval.r1|%`."))
    assert status == 0, output[-3000:]
    page = (tmp_path / "_build/html/book/intro.html").read_text()
    assert 'href="results.html#result-tiny"' in page
    assert "18.7%" in page
    records = (tmp_path / "_build/html/book/results.html").read_text()
    assert 'id="result-tiny"' in records
    assert "A tiny run." in records
    assert re.search(r'retrieval\.<wbr>r1.*href="intro\.html#quote-tiny-1">18\.7%', records, re.DOTALL)
    assert 'id="quote-tiny-1"' in page
    assert "mcliplib evaluate" in re.sub(r"<[^>]+>", "", records)
    assert 'href="../_static/records/tiny.json"' in records
    assert json.loads((tmp_path / "_build/html/_static/records/tiny.json").read_text())["n"] == 10
    assert re.search(r'href="chapter\.html">Chapter</a></p></td>\s*<td><p>\d+\.\d</p></td>\s*<td><p>ran</p>', page)


def test_a_record_without_a_card_stops_the_build(tmp_path: Path) -> None:
    folder = tiny_book(tmp_path)
    shutil.copy(folder / "records/tiny.json", folder / "records/other.json")
    status, output = build_tiny(folder)
    assert status != 0
    assert "record other has no card" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": "raise ValueError('on purpose')"}, "on purpose"),
        ({"text": "We reach {result}`tiny.retrieval.r2|%`."}, "there is r1"),
        ({"text": "See {ref}`nowhere`."}, "undefined label"),
        ({"text": "---\n"}, "no description"),
    ],
    ids=["a chapter that raises", "a missing result", "a broken reference", "no description"],
)
def test_a_fault_stops_the_build(tmp_path: Path, change: dict[str, str], message: str) -> None:
    folder = tiny_book(tmp_path, **change)
    if message == "no description":
        (folder / "book/intro.md").write_text("# Tiny\n")
    status, output = build_tiny(folder)
    assert status != 0
    assert message in output


def test_a_failing_chapter_costs_no_other_page(tmp_path: Path) -> None:
    """All pages are written, the failing one says so even where its cell is hidden, and the build ends in an error."""
    folder = tiny_book(tmp_path, code="print('before')")
    notebook = nbformat.read(folder / "book/chapter.ipynb", as_version=4)
    notebook.cells.append(new_code_cell("assert 0.08 > 0.95, 'on purpose'", metadata={"tags": ["remove-cell"]}))
    nbformat.write(notebook, folder / "book/chapter.ipynb")
    status, output = build_tiny(folder)
    assert status != 0
    assert "FAILED book/chapter: AssertionError: on purpose at assert 0.08 > 0.95" in output
    pages = {name: (folder / f"_build/html/book/{name}.html").read_text() for name in ("intro", "results", "chapter")}
    assert "<p>failed</p>" in pages["intro"]
    assert "This page did not run to its end" in pages["chapter"]
    assert "AssertionError: on purpose" in pages["chapter"]
    assert "before" in pages["chapter"]
    assert not any("did not run to its end" in pages[name] for name in ("intro", "results"))
