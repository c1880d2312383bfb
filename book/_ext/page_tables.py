"""A table made of nodes, and a link to another page of the book, for the extensions that draw them."""

from collections.abc import Sequence

from docutils import nodes
from sphinx.application import Sphinx


def table(head: Sequence[str], rows: Sequence[nodes.row], name: str) -> nodes.table:
    """A table of the class `name`."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    group += nodes.thead("", row(*([nodes.Text(text)] for text in head)))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=[name])


def row(*cells: Sequence[nodes.Node], **attributes: int) -> nodes.row:
    """Cells of inline nodes; the attributes are of each cell: `morecols=1` is as wide as two."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell), **attributes) for cell in cells))


def link(app: Sphinx, from_page: str, page: str, anchor: str = "", text: str = "") -> nodes.reference:
    """A link to a page or a place in it; it shows the page's title unless there is a text."""
    uri = app.builder.get_relative_uri(from_page, page) + (f"#{anchor}" if anchor else "")
    return nodes.reference("", text or app.env.titles[page].astext(), internal=True, refuri=uri)
