"""The list of references has the labels that the text cites: authors and year."""

from collections.abc import Iterator, Sequence

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx


class AuthorYearLabels(BaseLabelStyle):
    def format_labels(self, sorted_entries: Sequence[Entry]) -> Iterator[str]:
        for entry in sorted_entries:
            yield f"{authors(entry)}, {entry.fields['year']}"


class AuthorYearStyle(PlainStyle):
    default_label_style = AuthorYearLabels


def authors(entry: Entry) -> str:
    first, *others = [" ".join([*one.prelast_names, *one.last_names]) for one in entry.persons["author"]]
    return f"{first} et al." if len(others) > 1 else " and ".join([first, *others])


def setup(app: Sphinx) -> dict[str, bool]:
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
