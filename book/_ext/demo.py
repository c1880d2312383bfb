"""The files of the page "Try it", made from the shipped student at the end of each build that has the page."""

import importlib.util
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

PAGE = "book/try_it"
TOOL = Path(__file__).parents[1] / "_tools/try_it.py"


def make_files(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html" and PAGE in app.env.found_docs:
        load_tool().make(Path(app.outdir, "_static/try"))


def load_tool() -> Any:
    """The program that makes the files, as a module."""
    spec = importlib.util.spec_from_file_location("try_it", TOOL)
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", make_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
