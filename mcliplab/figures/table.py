"""A table in a notebook and on a static page: static pages do not draw tables in Markdown output."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from mcliplib.errors import UserError

if TYPE_CHECKING:
    from IPython.display import HTML


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> "HTML":
    """A table with a caption, wide ones scrolling sideways on a phone.

    Args:
        head: the columns' names.
        rows: cells; the first of each row names it.
        caption: what the table shows.

    Raises:
        UserError: a row that has not as many cells as there are columns.
    """
    if wrong := [row for row in rows if len(row) != len(head)]:
        raise UserError(f"a table of {len(head)} columns has a row of {len(wrong[0])} cells")
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(_row(row) for row in rows)
    from IPython.display import HTML

    return HTML(
        f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _row(cells: Sequence[object]) -> str:
    name, *rest = (escape(str(cell)) for cell in cells)
    return f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
