"""A page's description for search engines and link previews: its `description`, or else its question in bold type.

Derived descriptions would show raw LaTeX. The book's address is known only where it is published: BOOK_URL names it.
"""

import os
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)


def set_address(app: Sphinx, config: Config) -> None:
    config.html_baseurl = config.ogp_site_url = os.environ.get("BOOK_URL", "http://localhost:8000/")


def set_description(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if doctree is None:
        return
    fields = context.get("meta") or {}
    if not (description := fields.get("description") or question(doctree)):
        logger.warning("no description: add one to its front matter, or a question in bold type", location=page)
        return
    context["meta"] = fields | {"og:description": description}
    context["metatags"] += f'<meta name="description" content="{escape(description)}" />\n'


def question(doctree: nodes.document) -> str:
    """The question that a chapter begins with."""
    bold = (node.astext() for node in doctree.findall(nodes.strong))
    return next((" ".join(text.split()) for text in bold if text.endswith("?")), "")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_address)
    app.connect("html-page-context", set_description, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
