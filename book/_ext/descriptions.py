"""A page's `description` (front matter, or a notebook's metadata) for search engines and link previews.

Derived descriptions would show raw LaTeX. The book's address is known only where it is published: BOOK_URL names it.
"""

import os
from html import escape
from typing import Any

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
    if not (description := fields.get("description")):
        logger.warning("no description: add one to its front matter or notebook metadata", location=page)
        return
    context["meta"] = fields | {"og:description": description}
    context["metatags"] += f'<meta name="description" content="{escape(description)}" />\n'


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_address)
    app.connect("html-page-context", set_description, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
