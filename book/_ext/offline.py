"""No page may ask another host for anything: drop the scripts of services that Jupyter Book adds."""

from typing import Any

from sphinx.application import Sphinx

THEBE = ("thebe", "THEBE_JS_URL")


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
    return {"parallel_read_safe": True, "parallel_write_safe": True}
