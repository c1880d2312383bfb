"""The API pages: a heading for each module, and no docstring that says nothing."""

from typing import Any

from sphinx.application import Sphinx


def add_heading(app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    if what == "module":
        lines[:0] = [f".. rubric:: {name}", "   :heading-level: 2", ""]


def skip_alias(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """A named tuple's field has a docstring of Python's; the signature and the list of attributes say what it is."""
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", add_heading)
    app.connect("autodoc-skip-member", skip_alias)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
