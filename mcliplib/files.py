"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; when the block ends it takes that name, in one step.

    Where the block fails, nothing is left of it, and an earlier file stays as it was. So it does where the program is
    killed or the machine stops; what was half written is then overwritten by the next one.

    Args:
        path: the file; its folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # the content must be on the disk before the name is
        temporary.chmod(0o644)  # some writers make files that only their owner can read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
