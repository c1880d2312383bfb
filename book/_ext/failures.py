"""A chapter that fails while it runs costs no other page: it says so at its top, and the build lists its cell."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

ANSI = re.compile(r"\x1b\[[0-9;]*m")
ARROW = re.compile(r"^-+> +\d+ +(.*\S)", re.MULTILINE)  # the line that raised, in IPython's traceback
RULE = re.compile(r"^-{10,}$", re.MULTILINE)  # the lines around the cell in nbclient's message


def failures(env: Any) -> dict[str, tuple[str, str]]:
    """The failing cell and the error of each page whose code did not run to its end."""
    found = {}
    for page, kept in getattr(env, "nb_metadata", {}).items():
        run = kept.get("exec_data")
        if run and not run["succeeded"]:
            found[page] = _cell_and_error(run["traceback"] or run["error"] or "")
    return found


def _cell_and_error(traceback: str) -> tuple[str, str]:
    parts = RULE.split(ANSI.sub("", traceback))
    cell = parts[1].strip() if len(parts) > 2 else ""
    lines = [line.strip() for line in parts[-1].splitlines() if line.strip()]
    at = ARROW.findall(parts[-1])
    return cell, " at ".join([(lines or ["no message"])[-1].rstrip(": "), *at[-1:]])


def show_on_page(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put the error above everything else: the failing cell may be one that the page hides."""
    if page not in (failed := failures(app.env)):
        return
    cell, error = failed[page]
    note = nodes.admonition("", classes=["danger", "failed-run"])
    note += nodes.title(text="This page did not run to its end")
    note += nodes.paragraph(text=error)
    note += nodes.literal_block(cell, cell, language="python")
    section = next(doctree.findall(nodes.section), doctree)
    section.insert(1 if isinstance(section, nodes.section) else 0, note)


def list_all(app: Sphinx, exception: Exception | None) -> None:
    for page, (cell, error) in failures(app.env).items():
        first = cell.splitlines()[0] if cell else "?"
        print(f"FAILED {page}: {error} (in the cell that begins with: {first})", flush=True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", show_on_page)
    app.connect("build-finished", list_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
