import os
from pathlib import Path
from typing import NamedTuple

import pytest
from book_pages import BOOK, ROOT, build, with_executed
from filelock import FileLock


class Built(NamedTuple):
    """The book, and what its build said: "" where all was well."""

    site: Path
    faults: str


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """That of `make book` if nothing has changed since, else one built now, of the chapters that have been run."""
    from fingerprint import is_fresh

    made = BOOK / "_build" / "html"
    if is_fresh(made):
        return Built(made, "")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers: the first one builds, the others wait
    output = shared / "built"
    said = output / "faults.txt"
    with FileLock(shared / "built.lock"):
        if not said.exists():
            output.mkdir()
            run = build(ROOT, output, *with_executed(output))
            said.write_text(run.stdout[-3000:] + run.stderr[-6000:] if run.returncode else "")
    return Built(output / "_build" / "html", said.read_text())


@pytest.fixture(scope="session")
def site(built: Built) -> Path:
    """The built pages; a fault of one page does not keep the others from being tested."""
    return built.site


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test that may have to wait for the book's build an hour: the build takes long on a slow machine."""
    for item in items:
        if "built" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(3600))
