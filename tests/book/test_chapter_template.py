"""Every chapter keeps to the template, and its notebook holds no outputs."""

import re
import statistics
from pathlib import Path

import nbformat
import pytest
from book_pages import NOTEBOOKS, PAGES, ROOT, markdown, prose, toc_pages

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

SECTIONS = ("Check yourself", "From toy to paper", "Takeaways")
MEDIAN_LINES, MAX_LINES, MAX_WORDS = 8, 25, 2500
DOWNLOADS = re.compile(r"^\s*[!%]\s*(pip|conda|wget|curl|apt)|https?://|urllib|urlopen|hf_hub_download", re.MULTILINE)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def test_it_is_a_valid_notebook_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(path)), "run nbstripout"


def test_it_begins_with_a_label_a_title_and_at_a_glance(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0]
    assert re.match(r"\([a-z0-9_-]+\)=\n# \S", first.source), "a label, then the title"
    text = re.sub(r"```.*?```", "", markdown(path), flags=re.DOTALL)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert "{admonition} At a glance" in "\n".join(c.source for c in nbformat.read(path, as_version=4).cells[:2])


def test_it_has_the_sections_of_a_chapter(path: Path) -> None:
    headings = re.findall(r"^(?:## |\*\*)(.+)$", markdown(path), re.MULTILINE)
    assert [section for section in SECTIONS if not any(h.startswith(section) for h in headings)] == []


def test_its_parameters_come_first(path: Path) -> None:
    cells = code_cells(path)
    assert [tags(cell).count("parameters") for cell in cells] == [1] + [0] * (len(cells) - 1)
    assert "fast: bool = True" in cells[0].source
    assert "seed: int = 0" in cells[0].source
    assert re.search(r"^threads: int = [12]$", cells[0].source, re.MULTILINE)


def test_its_live_runs_hang_on_no_machine(path: Path) -> None:
    """Threads are pinned before anything is computed; whatever is trained, in a number format that is a parameter."""
    source = "\n".join(cell.source for cell in code_cells(path))
    assert re.search(r"^torch\.set_num_threads\(threads\)$", source, re.MULTILINE)
    trains = re.search(r"optimizer\.step\(\)|= train\(", source)
    if trains and "mobileclip_" in source:
        assert 'dtype: str = "float32"' in source
        assert "dtype=dtype" in source or "enabled=dtype ==" in source


def test_its_last_cell_asserts_what_it_promised(path: Path) -> None:
    last = nbformat.read(path, as_version=4).cells[-1]
    assert last.cell_type == "code"
    assert "remove-cell" in tags(last)
    assert re.search(r"^assert ", last.source, re.MULTILINE)


def test_its_cells_are_short(path: Path) -> None:
    lines = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert statistics.median(lines) <= MEDIAN_LINES
    assert max(lines) <= MAX_LINES


def test_its_figures_are_described_in_words(path: Path) -> None:
    """The same as the built page's test, but known in a second, without running the chapter."""
    drawing = [
        cell for cell in code_cells(path) if re.search(r"^\w.*plt\.(subplots|figure)\(", cell.source, re.MULTILINE)
    ]
    assert [c.id for c in drawing if not c.metadata.get("mystnb", {}).get("image", {}).get("alt")] == []


def test_its_solutions_are_folded_in_a_live_notebook(path: Path) -> None:
    """The book folds them by a directive; JupyterLab, which shows cell by cell, by the cells' metadata."""
    inside, open_cells = False, []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            open_cells += [cell.source] * (inside and not folded)
        for found in re.findall(r"\{solution-(start|end)\}", cell.source):
            inside = found == "start"
    assert not inside
    assert open_cells == []


def test_it_is_not_long(path: Path) -> None:
    assert len(prose(markdown(path)).split()) <= MAX_WORDS


def test_it_downloads_and_installs_nothing(path: Path) -> None:
    assert [match[0] for cell in code_cells(path) if (match := DOWNLOADS.search(cell.source))] == []


def test_it_says_what_it_is_about(path: Path) -> None:
    """In its metadata or by its question in bold type, for search engines and link previews."""
    question = re.search(r"^\*\*([^*]+\?)\*\*", markdown(path), re.MULTILINE)
    description = nbformat.read(path, as_version=4).metadata.get("description") or (question[1] if question else "")
    assert 20 <= len(description) <= 200
    assert not re.search(r"[$\\{]", description)


def test_it_is_in_the_table_of_contents(path: Path) -> None:
    listed = set(toc_pages())
    assert {str(page.relative_to(ROOT).with_suffix("")) for page in PAGES} == listed
