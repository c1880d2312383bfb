"""The package's own code on a page: read from the package, so that a page cannot show something else."""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown

COLUMNS = 88  # of code beside a page's table of contents
_FOR_TOOLS = re.compile(r"\s*# (?:type: ignore(?:\[[^]]*\])?|noqa[^#]*|fmt: \w+)(?=\s*(?:#|$))")
_OPENING, _CLOSING = ("(", "[", "{"), (")", "]", "}")
_OPERATORS = ("+", "-", "*", "/", "@", "|", "and", "or", "if", "else")


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
    """The source text, dedented, in lines that fit a page; without docstrings unless asked for."""
    text = inspect.cleandoc("\n" + inspect.getsource(one))
    lines = text.splitlines()
    if not docstrings:
        for start, end in reversed(_docstring_lines(ast.parse(text))):
            del lines[start - 1 : end + (lines[end : end + 1] == [""])]
    kept = [(line, _FOR_TOOLS.sub("", line)) for line in lines]
    return wrapped("\n".join(new for old, new in kept if new.strip() or not old.strip()))


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


def wrapped(code: str, columns: int = COLUMNS) -> str:
    """The same code in lines of at most `columns`, where brackets and comments allow it."""
    lines = code.splitlines()
    at = 0
    while at < len(lines):
        new = _broken("\n".join(lines), at, columns) if len(lines[at]) > columns else [lines[at]]
        lines[at : at + 1] = new
        if len(new) == 1:  # else its parts may be long, too
            at += 1
    return "\n".join(lines)


def _broken(code: str, at: int, columns: int) -> list[str]:
    """A long line as two lines or more: a comment moves above its code; code breaks in the fewest brackets."""
    line = code.splitlines()[at]
    indent = line[: len(line) - len(line.lstrip())]
    breaks = []  # brackets around, preference, where
    depth = outer = 0  # brackets that are open, and that were at the line's start
    for token in tokenize.generate_tokens(io.StringIO(code + "\n").readline):
        row, start = token.start[0] - 1, token.start[1]
        if row < at:
            outer = depth + (token.string in _OPENING) - (token.string in _CLOSING)
        depth -= token.string in _CLOSING
        if row == at and token.type == tokenize.COMMENT:
            above = textwrap.wrap(token.string, columns, initial_indent=indent, subsequent_indent=f"{indent}# ")
            return above + ([line[:start].rstrip()] if line[:start].strip() else [])
        if row == at and depth and token.string == "for":
            breaks.append((depth, 0, start))
        if row == at and depth and token.string == ",":
            breaks.append((depth, 1, token.end[1]))
        if row == at and depth and token.string in _OPERATORS and line[start - 1] == " ":
            breaks.append((depth, 2, start))
        depth += token.string in _OPENING
    fitting = [one for one in breaks if one[2] <= columns and line[: one[2]].strip() and line[one[2] :].strip()]
    if not fitting:
        return [line]
    depth, _, end = min(fitting, key=lambda one: (*one[:2], -one[2]))
    deeper = 0 if depth == outer else 8 if line.endswith(":") else 4
    return [line[:end].rstrip(), indent + " " * deeper + line[end:].lstrip()]
