import sys
from pathlib import Path

import pytest
from book_pages import BOOK, ROOT, build

sys.path.insert(0, str(BOOK / "_ext"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built book: that of `make book` if nothing has changed since, else one built now."""
    from fingerprint import is_fresh

    made = BOOK / "_build" / "html"
    if is_fresh(made):
        return made
    output = tmp_path_factory.mktemp("book")
    run = build(ROOT, output)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    return output / "_build" / "html"
