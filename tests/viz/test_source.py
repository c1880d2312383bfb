"""Code on a page is the package's, without its docstrings."""

import ast
import inspect

from mcliplab.figures.source import show_source, source_of
from mcliplib.layers import MobileOneBlock, RepMixer


def test_source_is_the_packages_own():
    shown = source_of(RepMixer.forward)
    assert shown == inspect.cleandoc("\n" + inspect.getsource(RepMixer.forward))


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
