"""Mark a finished build with a hash of everything it came from, so that the tests know whether it is still fresh."""

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("_config.yml", "_toc.yml", "requirements.lock", "book", "mcliplib", "mcliplab", "data")
MARK = ".inputs.sha256"


def fingerprint() -> str:
    """A hash of the names and contents of the book, the packages and the data."""
    digest = hashlib.sha256()
    for path in sorted(_files()):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files() -> list[Path]:
    found = [path for name in INPUTS for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()]
    return [path for path in found if not _made(path.relative_to(ROOT))]


def _made(path: Path) -> bool:
    return any(part in ("_build", "__pycache__") or part.startswith(".") for part in path.parts)


def is_fresh(site: Path) -> bool:
    """Whether `site` was built from the files as they are now."""
    mark = site / MARK
    return mark.is_file() and mark.read_text() == fingerprint()


if __name__ == "__main__":
    Path(sys.argv[1], MARK).write_text(fingerprint())
