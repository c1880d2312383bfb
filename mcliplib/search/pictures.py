"""The pictures in a folder, and whether they are as they were."""

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

from mcliplib.data.reader import IMAGE_EXTENSIONS
from mcliplib.data.shards import MAX_MEMBER
from mcliplib.errors import MissingFileError, UserError
from mcliplib.files import read_bytes

EXTENSIONS = (*IMAGE_EXTENSIONS, "gif", "bmp", "tif", "tiff")
_JUST_NOW = 2_000_000_000  # nanoseconds in which a file may change and keep its time


class State(NamedTuple):
    """Of a file: bytes, and nanoseconds of its last change."""

    size: int
    mtime_ns: int


def list_pictures(folder: Path) -> tuple[dict[str, State], tuple[str, ...]]:
    """The pictures in a folder and below by their relative paths, in order; and beginnings of what cannot be listed.

    Raises:
        UserError: the folder itself cannot be listed.
    """
    found, unlisted = dict[str, State](), list[str]()
    failed = lambda error: unlisted.append(os.path.relpath(error.filename, folder) + "/")  # noqa: E731
    for base, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if _is_visible(name))
        for name in sorted(filter(_is_visible, files)):
            if name.rpartition(".")[2].lower() in EXTENSIONS:
                path = os.path.join(base, name)
                try:
                    about = os.stat(path)
                except OSError:  # a link to nothing, or gone by now
                    continue
                if stat.S_ISREG(about.st_mode):
                    found[os.path.relpath(path, folder)] = State(about.st_size, about.st_mtime_ns)
    if "./" in unlisted:
        raise UserError(f"{folder}: cannot be listed; change its permissions")
    return found, tuple(unlisted)


def is_picture_file(name: str) -> bool:
    """Whether a text is the path of a picture's file, by its ending, that exists."""
    path = os.path.expanduser(name)
    return path.rpartition(".")[2].lower() in EXTENSIONS and "\0" not in path and os.path.isfile(path)


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def check_folder(folder: Path) -> None:
    """Raises a MissingFileError where there is no such folder."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; is its disk there?")


def settled(mtime_ns: int) -> int:
    """The time of change; 0, which no file has, if it is so new that the file may change again without showing it."""
    return mtime_ns if time.time_ns() - mtime_ns > _JUST_NOW else 0


def sha256_of(path: Path) -> bytes | None:
    """Of a file; None where it cannot be read."""
    try:
        return hashlib.sha256(read_bytes(path, MAX_MEMBER)).digest()
    except UserError:
        return None
