"""What the book's tests share: its chapters, its table of contents, a build, and its prose without code."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
EXECUTED = BOOK / "_build" / "executed"
sys.path.insert(0, str(BOOK / "_ext"))
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted([*NOTEBOOKS, *BOOK.glob("*.md"), *BOOK.glob("api/*.md")])


def toc_pages(root: Path = ROOT) -> list[str]:
    """Every page of the table of contents, as a path without suffix."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(page["file"] for chapter in chapters for page in [chapter, *chapter.get("sections", [])])]


def keep_executed(path: Path) -> None:
    """Keep what papermill has made of a chapter for `with_executed`, marked with what it was run on."""
    from fingerprint import fingerprint

    chapter, ran = (nbformat.read(one, as_version=4) for one in (BOOK / path.name, path))
    for cell, found in zip(chapter.cells, ran.cells, strict=True):  # without papermill's remarks on cells
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = found.outputs, found.execution_count
    chapter.metadata["widgets"] = ran.metadata.get("widgets", {})
    chapter.metadata["ran"] = {"inputs": fingerprint(), "seconds": ran.metadata.papermill.duration}
    EXECUTED.mkdir(parents=True, exist_ok=True)
    nbformat.write(chapter, EXECUTED / path.name)


def with_executed(folder: Path) -> list[str]:
    """Options of a build that takes the outputs of chapters that were run on all files as they are now.

    Its own configuration runs every chapter, always: a cache knows no change of the package or the data.
    """
    from fingerprint import fingerprint

    now, cache = fingerprint(), get_cache(folder / "cache")
    for path in EXECUTED.glob("*.ipynb"):
        chapter = nbformat.read(path, as_version=4)
        if (ran := chapter.metadata.ran)["inputs"] == now:
            made = CacheBundleIn(chapter, path.name, data={"execution_seconds": ran["seconds"]})
            cache.cache_notebook_bundle(made, check_validity=False)
    config: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"] |= {"execute_notebooks": "cache", "cache": str(folder / "cache")}
    extensions = config["sphinx"]["local_extensions"]  # found from the folder of the configuration
    extensions |= {name: str(ROOT / path) for name, path in extensions.items()}
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    return ["--config", str(folder / "_config.yml")]


def build(root: Path, output: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build the book of the folder `root` as `make book` does; the pages are in `output`/_build/html."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root), "--path-output", str(output)]
    command += ["--all", "-n", "-W", "--keep-going", *options]
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
