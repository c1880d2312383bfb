"""Files that appear whole or not at all, folders that one run at a time writes to, and names that become paths."""

import contextlib
import errno
import glob
import itertools
import os
import platform
import re
import stat
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from mcliplib.errors import UserError, WriteError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"  # how the names of half written files and folders begin
LOCK = ".lock"
_FREE = "free some space, or name another place"
_CURES = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EFBIG: "it is larger than the disk or `ulimit -f` allows",
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of its path is a file; name another place",
    errno.EEXIST: "a part of its path is a file; name another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTSUP: "it is a device or a pipe; name a file",
}
_numbers = itertools.count()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong in the block with writing `path` becomes one line that says what, why and what to do.

    Raises:
        WriteError: no space, not allowed, read-only, a folder, ...
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if (number := _errno(error, path)) is None:
            raise
        cure = _CURES.get(number, "cure it and try again")
        raise WriteError(f"{path}: cannot be written ({os.strerror(number)}); {cure}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; when the block ends it takes that name, in one step.

    Where the block fails, nothing is left of it, and an earlier file stays as it was. So it does where the program is
    killed or the machine stops; the next one who writes this file removes what was half written. Several processes
    may write one file: the last one to end wins.

    Args:
        path: the file, or a link to it; its folder is made where it is missing.

    Raises:
        WriteError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    with writing(path):
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, path.name)
        temporary = path.with_name(f"{UNFINISHED}{_host()}-{os.getpid()}-{next(_numbers)}-{_short(path.name)}")
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # the content must be on the disk before the name is
            temporary.chmod(0o644)  # some writers make files that only their owner can read
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time writes to the folder; what dead ones left half written is removed first.

    The lock is the operating system's: it ends with the process that holds it, however that dies. Who only reads the
    folder needs none. Of several processes of one run, the first one takes it for all.

    Args:
        folder: is made where it is missing.

    Raises:
        UserError: another run holds it; says which process, on which machine.
        WriteError: the folder cannot be written to.
    """
    path, made = folder / LOCK, not folder.exists()
    with contextlib.ExitStack() as stack:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                file = stack.enter_context(path.open("a+", encoding="utf-8"))
                _lock(file.fileno(), folder)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                        break  # else its holder removed the file after we had opened it
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            _sweep(folder, None)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
                if made:
                    folder.rmdir()  # where the run came to nothing: only an empty folder goes


def plain_name(name: str, what: str) -> str:
    """The name, if it is fit to be a file's or a folder's: it stays in its folder, on every system.

    Args:
        name: from outside.
        what: whose name, for the message.

    Raises:
        UserError: it has parts, steps out of its folder, is hidden, empty, too long or not printable.
    """
    bad = not isinstance(name, str) or re.search(r'^[.~]|[/\\:\0<>"|?*]|[. ]$', name) or not name.isprintable()
    if bad or not 0 < len(name.encode(errors="replace")) <= 200:
        raise UserError(f"{what}: {str(name)[:100]!r} is no name of a file; use letters, digits, '-', '_' and '.'")
    return name


def _lock(descriptor: int, folder: Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise UserError(f"{folder}: another run writes here ({owner}); wait for it, or name another folder") from None
    except OSError as error:
        warnings.warn(f"{folder}: cannot be locked ({error.strerror}); let one run at a time write here", stacklevel=4)


def _check_replaceable(path: Path) -> None:
    """Raises an OSError where a file of this name could not be put."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTSUP, "", str(path))


def _errno(error: BaseException | None, path: Path) -> int | None:
    """The number of the operating system's error behind this one, if it is about `path` or what is beside it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            about = path if error.filename is None else Path(os.fsdecode(error.filename))
            ours = about in (path, *path.parents) or about.name.startswith((UNFINISHED, LOCK))
            return error.errno if ours else None
        if found := re.search(r"\(os error (\d+)\)", str(error)):  # of a library written in Rust
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _short(name: str) -> str:
    """The end of a name, so that what is put before it does not make it too long."""
    return name[-40:]


def _sweep(folder: Path, name: str | None) -> None:
    """Remove what dead processes of this machine left half written, of one file or of all (then of any machine)."""
    import psutil

    for path in folder.glob(f"{UNFINISHED}*{'' if name is None else '-' + glob.escape(_short(name))}"):
        if found := re.match(rf"{UNFINISHED}([0-9a-f]{{8}})-(\d+)-\d+-", path.name):
            dead = not psutil.pid_exists(int(found[2])) if found[1] == _host() else name is None
            if dead:
                with contextlib.suppress(OSError):
                    path.unlink()
