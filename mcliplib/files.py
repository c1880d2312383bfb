"""Files that appear whole or not at all, and what comes from outside read with bounds.

Folders that one run at a time writes to; names that become paths; JSON and YAML of a declared form (`read_json`,
`read_yaml`, then `fitted`).
"""

import contextlib
import dataclasses
import errno
import glob
import itertools
import json
import math
import os
import platform
import re
import reprlib
import shutil
import stat
import types
import typing
import warnings
import zlib
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any, NamedTuple

from mcliplib.errors import MissingFileError, UserError, WriteError, first_line

UNFINISHED = ".unfinished-"  # how the names of half written files and folders begin
LOCK = ".lock"
_CURES = {
    errno.ENOSPC: "free some space, or name another place",
    errno.EFBIG: "it is larger than the disk or `ulimit -f` allows",
    errno.ENOTSUP: "it is a device or a pipe; name a file",
    errno.EACCES: "change its permissions, or name another place",
}
_CURES |= {errno.EDQUOT: _CURES[errno.ENOSPC], errno.EPERM: _CURES[errno.EACCES]}
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_numbers = itertools.count()
MOST_JSON = 1 << 28
MOST_YAML = 1 << 18
_MOST_ALIASES = 16  # of a YAML file; each may double what it stands for
_MOST_DEPTH = 100


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of writing `path` in the block into one line that says what failed, why, and the cure.

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
        cure = _CURES.get(number, "name another place")
        raise WriteError(f"{path}: cannot be written ({os.strerror(number)}); {cure}") from error


@contextlib.contextmanager
def blaming(what: str, cure: str = "", kinds: tuple[type[Exception], ...] = (Exception,)) -> Iterator[None]:
    """An error of these kinds in the block becomes a UserError: `WHAT (why)CURE`; a UserError stays itself.

    For what reads files from anywhere: libraries raise nearly anything on damaged ones.
    """
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise UserError(f"{what} ({getattr(error, 'strerror', None) or first_line(error)}){cure}") from error


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
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(mode := path.stat().st_mode):
                raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOTSUP, "", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, path.name)
        temporary = path.with_name(f"{UNFINISHED}{_HOST}-{os.getpid()}-{next(_numbers)}-{_short(path.name)}")
        try:
            temporary.touch()  # a place that cannot be written to is found before the work
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # the content must be on the disk before the name is
            temporary.chmod(0o644)  # some writers make files that only their owner can read
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write to; when the block ends it takes that name, in one step.

    Where the block fails, or the program is killed, no folder of that name appears, as with `replacing`.

    Args:
        path: must not exist, or be an empty folder; its parents are made where they are missing.

    Raises:
        UserError: something is there already.
        WriteError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    with writing(path):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(f"{path}: is there already; remove it, or name another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, path.name)
        temporary = path.with_name(f"{UNFINISHED}{_HOST}-{os.getpid()}-{next(_numbers)}-{_short(path.name)}")
        try:
            temporary.mkdir()
            yield temporary
            for file in filter(Path.is_file, temporary.rglob("*")):
                with file.open("rb+") as content:
                    os.fsync(content.fileno())  # the contents must be on the disk before the name is
            temporary.replace(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def check_replaceable(path: Path) -> None:
    """Raises a WriteError where a file of this name could not be written: to be called before hours of work."""

    class Tried(Exception):
        pass

    with contextlib.suppress(Tried), replacing(path):
        raise Tried


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


def check_regular(path: Path, most: int = 1 << 62) -> Path:
    """The path, if a file is there that can be read to its end.

    Args:
        path: of a file that comes from outside.
        most: bytes that it may have.

    Raises:
        MissingFileError: nothing is there.
        UserError: it is a folder, a device or a pipe, too large, or out of reach.
    """
    with blaming(f"{str(path)[:200]!r}: cannot be read", kinds=(OSError, ValueError)):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingFileError(f"{path}: no such file") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: is a {'folder' if stat.S_ISDIR(found.st_mode) else 'device or a pipe'}, not a file")
    if found.st_size > most:
        raise UserError(f"{path}: has {found.st_size:,} bytes; at most {most:,} are read")
    return path


def read_bytes(path: Path, most: int) -> bytes:
    """A whole file.

    Raises:
        UserError: see `check_regular`.
    """
    with blaming(f"{path}: cannot be read"), check_regular(path, most).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:  # files of the kernel say that they are empty
        raise UserError(f"{path}: has more than the {most:,} bytes that are read")
    return content


def read_json(source: Path | bytes | str, where: str | None = None, most: int = MOST_JSON) -> Any:
    """The JSON value in a file, or in text.

    Args:
        source: the file's path, or its content.
        where: what the message calls it; the path if None.
        most: bytes that it may have.

    Raises:
        UserError: it is too large, no UTF-8, no JSON, too deep, or not of JSON's own rules: a name twice, or a number
            that is not finite.
    """
    where = str(source) if where is None else where
    content = read_bytes(source, most) if isinstance(source, Path) else source
    if len(content) > most:
        raise UserError(f"{where}: has more than the {most:,} bytes that are read")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise UserError(f"{where}: is not JSON, or is damaged ({what})") from error


def read_yaml(path: Path, most: int = MOST_YAML) -> Any:
    """The value in a YAML file, of plain types only.

    Raises:
        UserError: it is too large, no UTF-8, no YAML, too deep, has a name twice, or too many aliases.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [one.value for one, _ in node.value if isinstance(one, yaml.ScalarNode) and one.value != "<<"]
            _unique([(name, None) for name in names])
            return super().construct_mapping(node, deep)

    text = read_bytes(path, most)
    try:
        aliases = depth = 0
        for event in yaml.parse(text, Loader):  # one by one: the whole of a deep file takes hours
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if aliases > _MOST_ALIASES or depth > _MOST_DEPTH:
                raise ValueError(f"more than {_MOST_ALIASES} aliases, or {_MOST_DEPTH} levels")
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: is not YAML ({what}{at})") from error


class Range(NamedTuple):
    """The range of a number, or of the length of a text or list: `Annotated[int, Range(1, 8)]`."""

    least: int | float
    most: int | float


def fitted(value: Any, kind: Any, where: str) -> Any:
    """A value from JSON or YAML as a type says: of these names, types and ranges, and no others.

    Args:
        value: of plain types.
        kind: int (not a bool), float (finite), str, bool, None, Any, a Literal, a union, a list, a tuple, a dict, a
            dataclass, a TypedDict (which may have other names as well), or Annotated with a `Range`.
        where: file and field, for the message.

    Returns:
        The value, with lists as tuples and objects as dataclasses where `kind` says so.

    Raises:
        UserError: names the field, and what it must be.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    right, number = False, isinstance(value, int | float) and not isinstance(value, bool)
    if origin is typing.NotRequired:
        return fitted(value, inner[0], where)
    if origin is typing.Annotated:
        value, (least, most) = fitted(value, inner[0], where), inner[1]
        if not least <= (len(value) if isinstance(value, Sized) else value) <= most:
            raise UserError(f"{where}: must be from {least} to {most}, got {reprlib.repr(value)}")
        return value
    if origin in (typing.Union, types.UnionType):
        for one in inner:
            with contextlib.suppress(UserError):
                return fitted(value, one, where)
    elif origin in (list, tuple):
        if isinstance(value, list | tuple):
            kinds = inner[:1] * len(value) if origin is list or inner[-1] is ... else inner
            if len(kinds) == len(value):
                return origin(fitted(one, kinds[at], f"{where}[{at}]") for at, one in enumerate(value))
    elif origin is dict or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return _fitted_object(value, kind, where)
    elif origin is typing.Literal:
        right = any(value == one and type(value) is type(one) for one in inner)
    elif kind is float and number and abs(value) < 1e308:
        return float(value)
    elif kind is int:
        right = number and isinstance(value, int) and abs(value) < 1 << 63
    elif kind is not float:
        right = kind is Any or isinstance(value, kind or type(None))
    if not right:
        named = getattr(kind, "__name__", str(kind)) if not inner else str(kind).replace("typing.", "")
        objects = dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)
        raise UserError(f"{where}: must be {'names with values' if objects else named}, got {reprlib.repr(value)}")
    return value


def _fitted_object(value: dict[str, Any], kind: Any, where: str) -> Any:
    if typing.get_origin(kind) is dict:
        of = typing.get_args(kind)[1]
        return {name: fitted(one, of, f"{where}: {reprlib.repr(name)}") for name, one in value.items()}
    hints, open_ended = typing.get_type_hints(kind, include_extras=True), typing.is_typeddict(kind)
    if open_ended:
        needed = kind.__required_keys__
    else:
        fields = dataclasses.fields(kind)
        needed = {one.name for one in fields if one.default is one.default_factory is dataclasses.MISSING}
    for what, names in (
        ("lacks", needed - set(value)),
        ("has unknown", set() if open_ended else set(value) - set(hints)),
    ):
        if names:
            raise UserError(f"{where}: {what} {', '.join(name[:80] for name in sorted(names)[:5])}")
    known = {name: fitted(one, hints[name], f"{where}: {name}") for name, one in value.items() if name in hints}
    return {**value, **known} if open_ended else kind(**known)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"has {reprlib.repr(next(name for name in found if names.count(name) > 1))} twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise UserError(f"{folder}: another run writes here ({owner}); wait for it, or name another folder") from None
    except (ImportError, OSError) as error:  # Windows has no such locks
        warnings.warn(f"{folder}: cannot be locked ({first_line(error)}); write here with one run only", stacklevel=4)


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


def _short(name: str) -> str:
    """The end of a name, so that what is put before it does not make it too long."""
    return name[-40:]


def _sweep(folder: Path, name: str | None) -> None:
    """Remove what dead processes of this machine left half written, of one file or of all (then of any machine)."""
    import psutil

    for path in folder.glob(f"{UNFINISHED}*{'' if name is None else '-' + glob.escape(_short(name))}"):
        found = re.match(rf"{UNFINISHED}([0-9a-f]{{8}})-(\d+)-\d+-", path.name)
        if found and (not psutil.pid_exists(int(found[2])) if found[1] == _HOST else name is None):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
