"""`{execution-times}`: how long each chapter took when this copy of the book was built, in the chapters' order."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from page_tables import link, row, table


class execution_times(nodes.General, nodes.Element):
    """Stands for the table until all chapters have run."""


class ExecutionTimes(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [execution_times()]


def draw(app: Sphinx, doctree: nodes.document, page: str) -> None:
    env: Any = app.env  # with what myst-nb adds to it
    for waiting in list(doctree.findall(execution_times)):
        rows = []
        for chapter in env.toctree_includes[app.config.root_doc]:
            if run := env.nb_metadata.get(chapter, {}).get("exec_data"):
                seconds = "–" if run["runtime"] is None else f"{run['runtime']:.1f}"
                result = "ran" if run["succeeded"] else "failed"
                rows.append(row([link(app, page, chapter)], [nodes.Text(seconds)], [nodes.Text(result)]))
        waiting.replace_self(table(("Chapter", "Seconds", "Result"), rows, "execution-times"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(execution_times)
    app.add_directive("execution-times", ExecutionTimes)
    app.connect("doctree-resolved", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
