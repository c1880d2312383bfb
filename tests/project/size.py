"""How large the package is, and what one opens to read an idea of the paper: `make size` prints it.

    python -m tests.project.size

Code is counted without docstrings, comments and blank lines.
"""

import ast
import io
import tokenize
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of `mcliplib`. 8,400 lines were enough until evaluation, fine-tuning and search came; export is next.
MOST_LINES, MOST_FILES = 12_500, 130
# An idea: the module in which one starts to read, what one need not open to follow it, and the most files to open.
READINGS = {
    "S0, top to bottom": ("mcliplib.presets", {"errors", "vit", "_vision", "_torchvision_compat"}, 9),
    "a training step": (
        "mcliplib.train.step",
        {
            "errors",
            "model",
            "precision",
            "tokenizer",
            "reinforce.augment",
            "reinforce.sample",
            "train.settings",
            "train.data",
        },
        5,
    ),
    "the fold": ("mcliplib.layers.fold", set(), 1),
    "the loss": ("mcliplib.losses", set(), 1),
    "the replay": ("mcliplib.reinforce.augment", {"errors", "images", "_vision"}, 1),
}
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(path: Path) -> int:
    """Lines with code on them."""
    source = path.read_text()
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            documented.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def total(paths: Iterable[Path]) -> int:
    return sum(map(lines_of_code, paths))


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def reading(name: str) -> list[Path]:
    """The files that one opens to read an idea, from the first one on: whatever they import, save what is left out."""
    start, left_out, _ = READINGS[name]
    waiting, found = [start], {}
    while waiting:
        module = waiting.pop()
        path = ROOT / (module.replace(".", "/") + ".py")
        if module in found or module.removeprefix("mcliplib.") in left_out or not path.is_file():
            continue  # a package is a list of names, which is no file to read
        found[module] = path
        waiting += [name for name in imported(path) if name.startswith("mcliplib.")]
    return list(found.values())


def rooms(package: str) -> dict[str, list[Path]]:
    """The files of each folder."""
    found: dict[str, list[Path]] = {}
    for path in files(package):
        found.setdefault(str(path.parent.relative_to(ROOT)), []).append(path)
    return found


def main() -> None:
    for name, (_, _, most) in READINGS.items():
        opened = [str(path.relative_to(ROOT)) for path in reading(name)]
        print(f"{name}: {len(opened)} files (at most {most}): {', '.join(opened)}")
    for package in ("mcliplib", "mcliplab"):
        print(f"{package}: {total(files(package)):,} lines of code in {len(files(package))} files")
        for room, paths in rooms(package).items():
            print(f"  {room:32}{total(paths):7,} lines {len(paths):4} files")


if __name__ == "__main__":
    main()
