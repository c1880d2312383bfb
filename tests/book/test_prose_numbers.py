"""No typed measurements: a number with a unit comes from a result record or from the file of published numbers."""

import re
from pathlib import Path

import pytest
from book_pages import NOTEBOOKS, PAGES, ROOT, markdown, prose

from mcliplab import quotes

README = ROOT / "README.md"
NUMBER = r"\d[\d,]*(?:\.\d+)?"
UNITS = (
    r"\s?%",
    r"\s?percent\b",
    r"\s?ms\b",
    r"\s?(?:samples|images|pairs|tokens)/s\b",
    r"\s?×(?!\s?\d)",
    r"x\b(?!\d)",
    r"\s(?:percentage )?points\b",
    r"\stimes\s(?:\w+er|fewer|less|more)\b",
)
MEASUREMENT = re.compile(rf"(?<![\w.]){NUMBER}(?:{'|'.join(UNITS)})")
SPANS = [(path.stem, span) for path in [README, *NOTEBOOKS] for span in quotes.QUOTED.finditer(markdown(path))]
ALLOWED = {
    line.split("  ")[0].strip()
    for line in Path(__file__).with_name("allowed_numbers.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
}


def typed_numbers(text: str) -> list[str]:
    """The measurements in a text that nothing vouches for, with their surroundings."""
    return [
        f"{match[0].strip()} in: {' '.join(part.split())[:120]}"
        for part in re.split(r"(?<=[.!?])\s+|\n\s*\n", prose(text))
        for match in MEASUREMENT.finditer(part)
        if match[0].strip() not in ALLOWED
    ]


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda path: path.stem)
def test_pages_type_no_measurement(page: Path) -> None:
    assert typed_numbers(quotes.QUOTED.sub(" ", markdown(page))) == []


@pytest.mark.parametrize(
    ("page", "span"), SPANS, ids=lambda value: value if isinstance(value, str) else value["reference"]
)
def test_the_text_shows_what_the_records_say(page: str, span: re.Match[str]) -> None:
    assert span["shown"] == quotes.quoted(span["role"], span["reference"]), "run: python book/_tools/quoted_numbers.py"


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_its_numbers_outside_of_the_book_too(page: Path) -> None:
    assert not re.search(r"\{(result|published)\}", markdown(page)), "run: python book/_tools/quoted_numbers.py"


@pytest.mark.parametrize(
    "text",
    [
        "It reaches 67.8% here.",
        "It takes 3.1 ms.",
        "We saw 1,000 samples/s.",
        "That is 10× fewer.",
        "That is 2.5x as fast.",
        "It is 10 times faster.",
        "It reaches 67.8% of ImageNet {cite}`mobileclip`.",
        "| S0 | 67.8% |\n|---|---|",
        "| S0 | 67.8% |\n|---|---|\n| {cite}`mobileclip` | S1 |",
    ],
)
def test_measurements_are_found(text: str) -> None:
    assert len(typed_numbers(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "It reaches {published}`s0_imagenet` of ImageNet {cite}`mobileclip`.",
        "It reaches {result}`small.r1|%` here.",
        "A 3×3 kernel, a 7 × 7 kernel and a 3x3 one over 256 px.",
        "Take `0.5%` of $5\\%$.",
        "```python\nx = 5  # 5%\n```",
    ],
)
def test_settings_sources_and_records_are_not_measurements(text: str) -> None:
    assert typed_numbers(text) == []
