"""Write the records' numbers into README and the chapters, between the comments that name them.

    python book/_tools/quoted_numbers.py

A notebook is read in JupyterLab and on GitHub too, where the book's `result` role would show raw. So its numbers stand
in the text, as `<!-- result: NAME.path|format -->13.5%<!-- /result -->`; the build makes them roles, with their links.
"""

import re
from pathlib import Path

from mcliplib import results

ROOT = Path(__file__).parents[2]
ROLE = re.compile(r"\{result\}`(?P<reference>[^`]+)`")  # in a notebook, becomes a span


def refreshed(text: str) -> str:
    return results.QUOTED.sub(lambda span: spanned(span["reference"]), text)


def spanned(reference: str) -> str:
    return f"<!-- result: {reference} -->{results.render(reference)}<!-- /result -->"


def main() -> None:
    readme, notebooks = ROOT / "README.md", sorted((ROOT / "book").glob("*.ipynb"))
    readme.write_text(refreshed(readme.read_text()))
    for path in notebooks:
        text = ROLE.sub(lambda role: spanned(role["reference"]), path.read_text())
        path.write_text(refreshed(text))


if __name__ == "__main__":
    main()
