"""The map from the paper leads to files that exist, and the page of the package misses no public name."""

import importlib
import re

import pytest
from book_pages import BOOK, ROOT

PACKAGES = (
    "mcliplib",
    "mcliplib.data",
    "mcliplib.evaluate",
    "mcliplib.latency",
    "mcliplib.layers",
    "mcliplib.reinforce",
    "mcliplib.search",
    "mcliplib.train",
    "mcliplib.viz",
    "mcliplab.figures",
)
API = "".join(page.read_text() for page in sorted(BOOK.glob("api/*.md")))
DOCUMENTED = set(re.findall(r"automodule:: (mcli(?:plib|plab)\.[\w.]+)", API))


def test_every_file_on_the_map_exists() -> None:
    named = re.findall(r"`(mcli(?:plib|plab)/[\w/]+\.py)`", (BOOK / "map.md").read_text())
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    homes = {name: getattr(getattr(module, name), "__module__", None) for name in module.__all__}
    assert {name: home for name, home in homes.items() if home is not None and home not in DOCUMENTED} == {}
