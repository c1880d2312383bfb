"""The house: who may use whom, and how small the package is."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
THE_ONE_DOOR = "mcliplib/cli"  # names the workshop's commands as strings, and imports them when they are asked for


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_the_package_never_uses_the_workshop() -> None:
    files = sorted((ROOT / "mcliplib").rglob("*.py"))
    assert len(files) > 50
    assert [file for file in files if any(name.split(".")[0] == "mcliplab" for name in imported(file))] == []
    named = {str(file.parent.relative_to(ROOT)) for file in files if '"mcliplab' in file.read_text()}
    assert named == {THE_ONE_DOOR}
