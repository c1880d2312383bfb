"""`{chapter-map}`: the parts of the book as a picture, each chapter with its link and its minutes to read.

All of it comes from the table of contents and from the chapters, so the map cannot be out of date.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_MINUTES = re.compile(r"(\d+) minutes to read")


class chapter_map(nodes.General, nodes.Element):
    """Stands for the map until all titles are known."""


class Part(NamedTuple):
    caption: str
    pages: list[str]


class ChapterMap(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(Path(self.env.srcdir, "_toc.yml")))
        return [chapter_map()]


def numbered_parts(source: Path) -> list[Part]:
    """The parts whose chapters have numbers, as the table of contents orders them."""
    toc = yaml.safe_load((source / "_toc.yml").read_text())
    return [
        Part(part["caption"], [chapter["file"] for chapter in part["chapters"]])
        for part in toc["parts"]
        if part.get("numbered")
    ]


def minutes_to_read(chapter: Path) -> int | None:
    """Return the reading time that a chapter states, in minutes, or None if it states none."""
    if not chapter.is_file():
        return None
    text = "".join("".join(cell["source"]) for cell in json.loads(chapter.read_text())["cells"])
    found = _MINUTES.search(text)
    return int(found[1]) if found else None


def draw(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for waiting in list(doctree.findall(chapter_map)):
        number, parts = 0, []
        for part in numbered_parts(Path(app.srcdir)):
            items = []
            for chapter in part.pages:
                number += 1
                items.append(_item(app, page, chapter, number))
            name = nodes.paragraph("", part.caption, classes=["part"])
            parts.append(nodes.container("", name, nodes.bullet_list("", *items)))
        waiting.replace_self(nodes.container("", *parts, classes=["chapter-map"]))


def _item(app: Sphinx, page: str, chapter: str, number: int) -> nodes.list_item:
    uri = app.builder.get_relative_uri(page, chapter)
    link = nodes.reference("", f"{number}. {app.env.titles[chapter].astext()}", internal=True, refuri=uri)
    minutes, kind = minutes_to_read(Path(app.srcdir, f"{chapter}.ipynb")), app.env.metadata[chapter].get("kind")
    shown = nodes.inline("", f"{minutes} min" if minutes else kind or "reference", classes=["minutes"])
    return nodes.list_item("", nodes.paragraph("", "", link, nodes.Text(" "), shown))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(chapter_map)
    app.add_directive("chapter-map", ChapterMap)
    app.connect("doctree-resolved", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
