"""Numbers that come from `data/results`: a role for prose, a directive for the page that lists them all."""

from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from mcliplib import results
from mcliplib.errors import UserError

logger = logging.getLogger(__name__)
SCORE = {"value", "low", "high", "n"}  # what `Score.record` writes


class ResultRole(SphinxRole):
    """`{result}`NAME.path.to.value|format`` is the formatted number, linked to its record on the results page."""

    inliner: Inliner

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            shown = results.render(self.text)
        except UserError as error:
            logger.warning("%s", error, location=self.get_location())
            return [nodes.literal(text=self.text)], []
        name = self.text.strip().partition(".")[0]
        self.env.note_dependency(str(results.folder() / f"{name}.json"))
        link = addnodes.pending_xref(
            "", refdomain="std", reftype="ref", reftarget=label(name), refexplicit=True, refdoc=self.env.docname
        )
        link += nodes.inline("", shown, classes=["result"])
        return [link], []


class AllResults(SphinxDirective):
    """A section for each record: the numbers, what they were measured on, and the command that repeats them."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        shown = [self._section(name) for name in results.names()]
        return shown or [nodes.paragraph(text="No run has been recorded yet.")]

    def _section(self, name: str) -> nodes.section:
        content = results.load(name)
        section = nodes.section(ids=[label(name)])
        section += nodes.title(text=name)
        self._register(name)
        section += nodes.literal_block(content["command"], content["command"], language="bash")
        section += table(["value", "measured", "unit, or how sure"], value_rows(content))
        section += nodes.paragraph(text=provenance(content))
        return section

    def _register(self, name: str) -> None:
        std: Any = self.env.get_domain("std")
        std.anonlabels[label(name)] = (self.env.docname, label(name))
        std.labels[label(name)] = (self.env.docname, label(name), name)


def label(name: str) -> str:
    return f"result-{name}"


def value_rows(content: dict[str, Any]) -> list[list[str]]:
    unit = content["unit"]
    rows = []
    for path, found in leaves(content["values"]):
        own = unit if isinstance(unit, str) else unit.get(path, unit.get(path.partition(".")[0], ""))
        rows.append([path, *(shown_score(found) if isinstance(found, dict) else (shown(found), own))])
    return rows


def leaves(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The values by dotted path; a score with its interval stays one value."""
    found: list[tuple[str, Any]] = []
    for key, item in values.items():
        nested = isinstance(item, dict) and set(item) != SCORE
        found += leaves(item, f"{prefix}{key}.") if nested else [(prefix + key, item)]
    return found


def shown(found: Any) -> str:
    return f"{found:,.4g}" if isinstance(found, float) else f"{found:,}" if isinstance(found, int) else str(found)


def shown_score(found: dict[str, float]) -> tuple[str, str]:
    interval = f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"
    return f"{100 * found['value']:.1f}%", f"95% interval {interval}, n = {found['n']:,}"


def provenance(content: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, content["seeds"]))
    return (
        f"n = {content['n']}; seeds {seeds}; {content['seconds']:.0f} s on {content['hardware']}; "
        f"{content['date']}, commit {content['commit']}."
    )


def table(head: list[str], rows: list[list[str]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *map(_row, rows))
    return nodes.table("", group, classes=["results"])


def _row(cells: list[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("result", ResultRole())
    app.add_directive("all-results", AllResults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
