"""What the book's tests share: its chapters, its table of contents, a build, and its prose without code."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted([*NOTEBOOKS, *BOOK.glob("*.md"), *BOOK.glob("api/*.md")])


def toc_pages(root: Path = ROOT) -> list[str]:
    """Every page of the table of contents, as a path without suffix."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(page["file"] for chapter in chapters for page in [chapter, *chapter.get("sections", [])])]


def build(root: Path, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the book of the folder `root` as `make book` does; the pages are in `output`/_build/html."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root), "--path-output", str(output)]
    command += ["--all", "-n", "-W", "--keep-going"]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, env=environment or None)


def markdown(page: Path) -> str:
    """The Markdown of a page; of a notebook, that of its cells."""
    if page.suffix == ".ipynb":
        return "\n\n".join(c.source for c in nbformat.read(page, as_version=4).cells if c.cell_type == "markdown")
    return page.read_text(encoding="utf-8")


# Order matters: blocks before what may stand inside them.
_NOT_PROSE = [
    re.compile(r"\A---\n.*?\n---\n", re.DOTALL),  # front matter
    re.compile(r"^ *(`{3,})(?!\{|\n)[^\n]*\n.*?^ *\1 *$", re.DOTALL | re.MULTILINE),  # code, but not directives
    re.compile(r"^ *:(alt|name|width|widths|height|class|header-rows|label):.*$", re.MULTILINE),
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL),
    re.compile(r"\{(?!cite)[a-z:-]+\}`[^`]+`"),  # roles, except citations
    re.compile(r"(?<!\})`[^`\n]+`"),
    re.compile(r"\]\([^)]*\)|<https?:[^>]*>"),
]


def prose(text: str) -> str:
    """Markdown without code, formulas, roles and addresses. Citations stay."""
    for pattern in _NOT_PROSE:
        text = pattern.sub(" ", text)
    return text
