"""Marks in the pages by which the style sheet keeps lines and tables readable on a narrow screen."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

BEFORE = re.compile(r"[(\[“‘]+$")
AFTER = re.compile(r"^[^\s\w]+")
COLUMNS = re.compile(r"\S {2,}\S")


def keep_together(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """A browser may break a line at both sides of a formula, even before a comma: tie it to the marks around it."""
    for formula in list(doctree.findall(nodes.math)):
        parent = formula.parent
        place = parent.index(formula)
        kept = nodes.inline("", "", formula.deepcopy(), classes=["together"])
        for neighbour, pattern, end in ((place + 1, AFTER, 1), (place - 1, BEFORE, 0)):
            if not 0 <= neighbour < len(parent) or not isinstance(parent[neighbour], nodes.Text):
                continue
            if found := pattern.search(text := parent[neighbour].astext()):
                kept.insert(end * len(kept), nodes.Text(found[0]))
                parent[neighbour] = nodes.Text(text[: found.start()] + text[found.end() :])
        if len(kept) > 1:
            parent[place] = kept


def name_cells(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """A stacked table shows no heading on a phone: each cell after a row's first one says its column's name."""
    for table in doctree.findall(lambda node: isinstance(node, nodes.table) and "stacked" in node["classes"]):
        names = [entry.astext() for head in table.findall(nodes.thead) for entry in head[0]]
        for row in (row for body in table.findall(nodes.tbody) for row in body):
            for name, entry in list(zip(names, row, strict=True))[1:]:
                entry[0].insert(0, nodes.inline("", f"{name}: ", classes=["column-name"]))


def mark_columns(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """A printed table has two lines or more with two spaces in a row: it must not wrap."""
    for block in doctree.findall(nodes.literal_block):
        if "output" in block["classes"] and sum(map(bool, map(COLUMNS.search, block.astext().splitlines()))) > 1:
            block["classes"].append("in-columns")


def move_spaces(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Let no link begin with a space, which would be underlined: the extension for exercises makes such ones."""
    for link in list(doctree.findall(nodes.reference)):
        if link.children and isinstance(link[0], nodes.Text) and link[0].startswith(" "):
            link[0] = nodes.Text(link[0].lstrip())
            link.parent.insert(link.parent.index(link), nodes.Text(" "))


def setup(app: Sphinx) -> dict[str, Any]:
    for step in (keep_together, name_cells, mark_columns, move_spaces):
        app.connect("doctree-resolved", step)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
