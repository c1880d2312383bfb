"""The package's own code on a page: read from the package, so that a page cannot show something else."""

import ast
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown


def show_source(*objects: Any, docstrings: bool = False) -> "Markdown":
    """The source of functions, methods or classes, as a highlighted block.

    Args:
        objects: what to show, in order.
        docstrings: whether to keep their docstrings; the API page has them.
    """
    from IPython.display import Markdown

    parts = [source_of(one, docstrings=docstrings) for one in objects]
    return Markdown("```python\n" + "\n\n".join(parts) + "\n```")


def source_of(one: Any, *, docstrings: bool = False) -> str:
    """The source text, dedented; without docstrings unless asked for."""
    text = inspect.cleandoc("\n" + inspect.getsource(one))
    if docstrings:
        return text
    lines = text.splitlines()
    for start, end in reversed(_docstring_lines(ast.parse(text))):
        del lines[start - 1 : end]
    return "\n".join(lines)


def _docstring_lines(tree: ast.AST) -> list[tuple[int, int]]:
    """First and last line (from 1) of every docstring that is not a body's only statement, in order."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and len(node.body) > 1:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                found.append((first.lineno, first.end_lineno or first.lineno))
    return sorted(found)
