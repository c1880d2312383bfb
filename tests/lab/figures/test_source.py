"""Code on a page is the package's, without its docstrings."""

import ast
import inspect

import pytest

import mcliplib.layers.repmixer
import mcliplib.losses
import mcliplib.train.step
from mcliplab.figures.source import show_source, source_of, wrapped
from mcliplib.layers import MobileOneBlock, RepMixer


def test_source_is_the_packages_own():
    shown = source_of(RepMixer.forward)
    assert shown == inspect.cleandoc("\n" + inspect.getsource(RepMixer.forward))


@pytest.mark.parametrize("module", [mcliplib.layers.repmixer, mcliplib.losses, mcliplib.train.step])
def test_wrapped_source_is_the_same_program(module):
    text = inspect.getsource(module)
    shown = wrapped(text, 60)
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(text))
    assert len(shown.splitlines()) > len(text.splitlines()) + 10


def test_long_lines_end_where_a_reader_would_end_them():
    code = """\
def f(first: int, second: int, third: int) -> dict[str, int]:
    names = [name.lower() for name in ALL_OF_THEM]
    return dict(zip(names, (first, second, third)))  # a dict"""
    shown = """\
def f(first: int, second: int,
        third: int) -> dict[str, int]:
    names = [name.lower()
        for name in ALL_OF_THEM]
    # a dict
    return dict(zip(names,
        (first, second, third)))"""
    assert wrapped(code, 40) == shown


def _with_comments(size):  # fmt: skip
    """Comments for tools are left out."""

    if size:
        l = size  # noqa: E741
        return l
    # fmt: off
    return 2  # two


def test_comments_for_tools_and_the_docstrings_place_are_left_out():
    assert source_of(_with_comments).splitlines() == [
        "def _with_comments(size):",
        "    if size:",
        "        l = size",
        "        return l",
        "    return 2  # two",
    ]


def test_docstrings_are_left_out_and_the_rest_still_parses():
    shown = source_of(MobileOneBlock)
    assert '"""' not in shown
    kept = [node.name for node in ast.walk(ast.parse(shown)) if isinstance(node, ast.FunctionDef)]
    assert kept == ["__init__", "forward", "affine", "fuse"]
    assert source_of(MobileOneBlock, docstrings=True).count('"""') > 2


def test_shown_as_a_highlighted_block():
    text = show_source(RepMixer.forward, RepMixer.fuse).data
    assert text.startswith("```python\ndef forward(")
    assert text.endswith("\n```")
    assert "def fuse(" in text
