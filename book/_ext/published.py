"""`{published}`NAME`` is a number of the paper's: the one file of them names the source of each, and the page cites it.

These are the only numbers in the book that no run of ours wrote.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from mcliplab import quotes
from mcliplib.errors import UserError

logger = logging.getLogger(__name__)


class PublishedRole(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        self.env.note_dependency(str(quotes.PUBLISHED))
        try:
            found = quotes.published(self.text)
        except UserError as error:
            logger.warning("%s", error, location=self.get_location())
            return [nodes.literal(text=self.text)], []
        return [nodes.abbreviation(text=found["value"], explanation=f"{found['what']}, in {found['unit']}")], []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("published", PublishedRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
