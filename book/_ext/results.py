"""Numbers that come from `data/results`: a role for prose, and a card for each record on the page that lists them all.

The links go both ways: a number in a sentence leads to its record's card, and the card lists each place that quotes it.
"""

import re
import shutil
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from mcliplab.quotes import QUOTED, render
from mcliplib import results
from mcliplib.errors import UserError
from page_tables import link, row, table

logger = logging.getLogger(__name__)
COPIES = "_static/records"  # where the built book keeps the whole records


class Quote(NamedTuple):
    """A place that shows one number of a record."""

    page: str
    anchor: str
    name: str  # of the record
    path: str  # to the value
    shown: str


class quotes_of(nodes.General, nodes.Element):
    """Stands for the list of a record's quotes until all pages are read."""


class ResultRole(SphinxRole):
    """`{result}`NAME.path.to.value|format`` is the formatted number, linked to its record on the results page."""

    inliner: Inliner

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            shown = render(self.text)
        except UserError as error:
            logger.warning("%s", error, location=self.get_location())
            return [nodes.literal(text=self.text)], []
        name, _, path = self.text.partition("|")[0].strip().partition(".")
        self.env.note_dependency(str(results.folder() / f"{name}.json"))
        own = quotes(self.env).setdefault(self.env.docname, [])
        anchor = f"quote-{name}-{len(own) + 1}"
        own.append(Quote(self.env.docname, anchor, name, path, shown))
        card = addnodes.pending_xref(
            "", refdomain="std", reftype="ref", reftarget=label(name), refexplicit=True, refdoc=self.env.docname
        )
        card += nodes.inline("", shown, classes=["result"])
        return [nodes.inline("", "", card, ids=[anchor])], []


class Record(SphinxDirective):
    """`{record} NAME` and a sentence: the record's card."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        content = results.load(name)
        self.env.note_reread()
        section = nodes.section(ids=[label(name)], classes=["record"])
        section += nodes.title(text=name)
        self._register(name)
        self.state.nested_parse(self.content, self.content_offset, section)
        section += command_block(content["command"])
        section += nodes.paragraph(text=provenance(content))
        section += quotes_of(name=name)
        file = nodes.reference("", f"{name}.json", internal=True, refuri=f"../{COPIES}/{name}.json")
        size = (results.folder() / f"{name}.json").stat().st_size
        section += nodes.paragraph("", "The whole record: ", file, nodes.Text(f" ({max(1, round(size / 1024))} KB)."))
        return [section]

    def _register(self, name: str) -> None:
        std: Any = self.env.get_domain("std")
        std.anonlabels[label(name)] = (self.env.docname, label(name))
        std.labels[label(name)] = (self.env.docname, label(name), name)
        cards(self.env).add(name)


def label(name: str) -> str:
    return f"result-{name}"


def quotes(env: Any) -> dict[str, list[Quote]]:
    """By page."""
    if not hasattr(env, "result_quotes"):
        env.result_quotes = {}
    return env.result_quotes


def readers(env: Any) -> dict[str, set[str]]:
    """The records that a page's code reads, by page."""
    if not hasattr(env, "result_readers"):
        env.result_readers = {}
    return env.result_readers


def cards(env: Any) -> set[str]:
    if not hasattr(env, "result_cards"):
        env.result_cards = set()
    return env.result_cards


def provenance(content: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, content["seeds"])) or "none"
    minutes = content["seconds"] / 60
    took = f"{content['seconds']:.0f} s" if minutes < 2 else f"{minutes:,.0f} min"
    return f"{content['hardware']}. n = {content['n']}; seeds: {seeds}; {took}; {content['date']}, {content['commit']}."


def command_block(command: str) -> nodes.raw:
    """A block of code whose lines never end between an option and its value."""
    parts = re.findall(r"--?[a-z]\S*(?: +(?!-)\S+)?|\S+", command)
    shown = " ".join(f'<span class="together">{escape(part)}</span>' for part in parts)
    block = f'<div class="command highlight-bash notranslate"><div class="highlight"><pre>{shown}\n</pre></div></div>'
    return nodes.raw("", block, format="html")


def breakable(path: str) -> list[nodes.Node]:
    """A path of keys, whose lines may end after its dots, slashes and underscores."""
    parts = re.findall(r"[^./_]+[./_]*|[./_]+", path)
    return [node for part in parts for node in (nodes.Text(part), nodes.raw("", "<wbr>", format="html"))][:-1]


def note_readers(app: Sphinx, page: str, source: list[str]) -> None:
    """A chapter's code names records as strings, or makes their names from a beginning: f"latency-{name}"."""
    text = source[0].replace('\\"', '"')
    if "results" not in text or not app.env.doc2path(page).endswith(".ipynb"):
        return
    beginnings = tuple(re.findall(r'f"([a-z0-9_]+-)\{', text))
    readers(app.env)[page] = {
        name for name in results.names() if f'"{name}"' in text or (beginnings and name.startswith(beginnings))
    }


def make_roles(app: Sphinx, page: str, source: list[str]) -> None:
    """In notebooks, the numbers stand between comments that name them: `book/_tools/quoted_numbers.py` says why."""
    source[0] = QUOTED.sub(r"{\g<role>}`\g<reference>`", source[0])


def list_quotes(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put the places that quote a record where its card waits for them."""
    for waiting in list(doctree.findall(quotes_of)):
        name = waiting["name"]
        found = [quote for own in quotes(app.env).values() for quote in own if quote.name == name]
        made: list[nodes.Node] = [table(("value", "shown as"), _by_page(app, page, found), "results")] if found else []
        if pages := [one for one, names in sorted(readers(app.env).items()) if name in names]:
            links = nodes.paragraph("", "Read by the code of: ")
            for place, one in enumerate(pages):
                links += [nodes.Text(", ")] * bool(place) + [link(app, page, one)]
            made.append(links)
        waiting.replace_self(made)


def _by_page(app: Sphinx, page: str, found: list[Quote]) -> list[nodes.row]:
    """Each page's title, and below it each value once, linked to its first place there."""
    rows = []
    for quoting, group in groupby(found, lambda quote: quote.page):
        rows.append(row([link(app, page, quoting)], morecols=1))
        first: dict[tuple[str, str], Quote] = {}
        for quote in group:
            first.setdefault((quote.path, quote.shown), quote)
        for quote in first.values():
            rows.append(row(breakable(quote.path), [link(app, page, quoting, quote.anchor, quote.shown)]))
    return rows


def check_cards(app: Sphinx, env: Any) -> None:
    """A record without a card could be quoted, but not found."""
    if not cards(env):
        return  # a book without the page
    for name in sorted(set(results.names()) - cards(env)):
        logger.warning("record %s has no card: add a {record} directive to the page of all results", name)


def copy_records(app: Sphinx, exception: Exception | None) -> None:
    folder = Path(app.outdir, COPIES)
    folder.mkdir(parents=True, exist_ok=True)
    for path in results.folder().glob("*.json"):
        shutil.copy(path, folder)


def forget(app: Sphinx, env: Any, page: str) -> None:
    quotes(env).pop(page, None)
    readers(env).pop(page, None)


def merge(app: Sphinx, env: Any, pages: set[str], other: Any) -> None:
    for page in pages:
        if page in quotes(other):
            quotes(env)[page] = quotes(other)[page]
        if page in readers(other):
            readers(env)[page] = readers(other)[page]
    cards(env).update(cards(other))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(quotes_of)
    app.add_role("result", ResultRole())
    app.add_directive("record", Record)
    app.connect("source-read", note_readers)
    app.connect("source-read", make_roles)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-check-consistency", check_cards)
    app.connect("doctree-resolved", list_quotes)
    app.connect("build-finished", copy_records)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
