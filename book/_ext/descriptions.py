"""Titles and descriptions for search engines, link previews and browser tabs; the addresses of book and source.

A page's description is its `description`, or else its question in bold type (a derived one would show raw LaTeX). The
book's address and its repository's are settings (`book_url`, `book_repository` in `_config.yml`, or the environment's
BOOK_URL and BOOK_REPOSITORY). What needs an address that is not set is left out.
"""

import os
import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)
UNKNOWN = "http://book.invalid/"  # the extensions for previews and site maps insist on an address


def set_addresses(app: Sphinx, config: Config) -> None:
    config.book_url = os.environ.get("BOOK_URL", config.book_url)
    config.html_baseurl = config.ogp_site_url = config.book_url or UNKNOWN
    if repository := os.environ.get("BOOK_REPOSITORY", config.book_repository):
        links = ("use_repository_button", "use_edit_page_button", "use_issues_button")
        config.html_theme_options |= {"repository_url": repository, **dict.fromkeys(links, True)}


def set_description(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if page == app.config.root_doc:
        context["docstitle"] = ""  # its title is the book's, once
    if doctree is None:
        return
    fields = context.get("meta") or {}
    if not (description := fields.get("description") or question(doctree)):
        logger.warning("no description: add one to its front matter, or a question in bold type", location=page)
        return
    context["meta"] = fields | {"og:description": description}
    context["metatags"] += f'<meta name="description" content="{escape(description)}" />\n'


def drop_unknown(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if not app.config.book_url:
        context["metatags"] = re.sub(rf'<meta [^>]*"{UNKNOWN}[^>]*>\s*', "", context.get("metatags", ""))
        context["pageurl"] = None  # the canonical link


def question(doctree: nodes.document) -> str:
    """The question that a chapter begins with."""
    bold = (node.astext() for node in doctree.findall(nodes.strong))
    return next((" ".join(text.split()) for text in bold if text.endswith("?")), "")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("book_url", "", "html")
    app.add_config_value("book_repository", "", "html")
    app.connect("config-inited", set_addresses)
    app.connect("html-page-context", set_description, priority=400)
    app.connect("html-page-context", drop_unknown, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
