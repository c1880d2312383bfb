"""Correct the theme: remove its requests to other hosts, and mend its accessibility faults."""

from typing import Any

from sphinx.application import Sphinx

THEBE = ("thebe", "THEBE_JS_URL")


def name_toggles(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the arrows that open a part of the table of contents a name for screen readers."""
    if draw := context.get("generate_toctree_html"):
        context["generate_toctree_html"] = lambda *args, **kwargs: str(draw(*args, **kwargs)).replace(
            "<summary>", '<summary aria-label="Pages of this part">'
        )


def name_no_list(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Drop the list role of a bibliography, which holds no list items: its entries have roles of their own."""
    if body := context.get("body"):
        context["body"] = body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Thebe runs cells on a public server, and loads itself from one; this book's cells run on the reader's machine."""
    context["script_files"] = [script for script in context["script_files"] if not _names_thebe(script)]
    context["css_files"] = [style for style in context["css_files"] if not _names_thebe(style)]
    if "<script" in context.get("body", ""):
        context["body"] = _without_thebe_settings(context["body"])


def _names_thebe(file: Any) -> bool:
    text = f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {})}"
    return any(name in text for name in THEBE)


def _without_thebe_settings(body: str) -> str:
    start = body.find('<script type="text/x-thebe-config">')
    if start < 0:
        return body
    script = body.find("kernelName =", start)
    end = body.find("</script>", max(start, script)) + len("</script>")
    return body[:start] + body[end:]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", name_toggles, priority=900)
    app.connect("html-page-context", name_no_list, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
