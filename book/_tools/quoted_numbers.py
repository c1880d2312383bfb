"""Write the records' numbers into README and the chapters, between the comments that name them.

    python book/_tools/quoted_numbers.py

A notebook is read in JupyterLab and on GitHub too, where the book's roles would show raw. So its numbers stand
in the text, as `<!-- result: NAME.path|format -->13.5%<!-- /result -->`; the build makes them roles, with their links.
"""

import re
from pathlib import Path

from mcliplab import quotes

ROOT = Path(__file__).parents[2]
ROLE = re.compile(
    r"\{(?P<role>result|published)\}`(?P<reference>[^`]+)`"
)  # in a notebook, becomes a span


def refreshed(text: str) -> str:
    return quotes.QUOTED.sub(spanned, text)


def spanned(number: re.Match[str]) -> str:
    role, reference = number["role"], number["reference"]
    return (
        f"<!-- {role}: {reference} -->{quotes.quoted(role, reference)}<!-- /{role} -->"
    )


def main() -> None:
    readme, notebooks = ROOT / "README.md", sorted((ROOT / "book").glob("*.ipynb"))
    readme.write_text(refreshed(readme.read_text()))
    for path in notebooks:
        path.write_text(refreshed(ROLE.sub(spanned, path.read_text())))


if __name__ == "__main__":
    main()
