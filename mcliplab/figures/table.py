"""A table in a notebook and on a static page: static pages do not draw tables in Markdown output."""

import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from mcliplib.errors import UserError

if TYPE_CHECKING:
    from IPython.display import HTML

_AT_THE_END = ' style="text-align:right"'
_NO_UNIT = re.compile(r"\b(at least|at most|to)\b|(?<=\d)e[+-]?\d")  # letters that a number may have


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> "HTML":
    """A table with a caption, wide ones scrolling sideways on a phone; columns of numbers are aligned at their ends.

    Args:
        head: the columns' names.
        rows: cells; the first of each row names it.
        caption: what the table shows.

    Raises:
        UserError: a row that has not as many cells as there are columns.
    """
    if wrong := [row for row in rows if len(row) != len(head)]:
        raise UserError(f"a table of {len(head)} columns has a row of {len(wrong[0])} cells")
    texts = [[str(cell) for cell in row] for row in rows]
    ends = [place > 0 and all(_is_number(row[place]) for row in texts) for place in range(len(head))]
    columns = "".join(
        f'<th scope="col"{_AT_THE_END * end}>{_shown(name)}</th>' for name, end in zip(head, ends, strict=True)
    )
    lines = "".join(_row(row, ends) for row in texts)
    from IPython.display import HTML

    return HTML(
        f'<div class="table-box" style="overflow-x:auto" tabindex="0" role="region" aria-label="{_shown(caption)}">'
        f'<table class="table"><caption>{_shown(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _row(cells: Sequence[str], ends: Sequence[bool]) -> str:
    name, *rest = cells
    shown = "".join(
        f"<td{_AT_THE_END}>{_unbroken(cell)}</td>" if end else f"<td>{_shown(cell)}</td>"
        for cell, end in zip(rest, ends[1:], strict=True)
    )
    name = _shown(name).replace("/", "/<wbr>")
    return f'<tr><th scope="row">{name}</th>{shown}</tr>'


def _is_number(cell: str) -> bool:
    """Whether a cell holds numbers and signs alone, or nothing."""
    return not any(character.isalpha() for character in _NO_UNIT.sub("", cell))


def _unbroken(number: str) -> str:
    """Lines end before brackets only, and in a range of bounds; never after its dash."""
    return re.sub(r" (?!\(|to at )", "\u00a0", _shown(number)).replace("–", "–\u2060")


def _shown(text: str) -> str:
    """HTML, with apostrophes as in a printed text."""
    return escape(re.sub(r"(?<=\w)'(?=s\b|\s)", "’", text))
