"""The input of a run: samples as their source holds them, with encoded image, caption and metadata.

`find_sources` takes what a user may name: WebDataset shards (a path, a URL of fsspec, a glob, braces, a folder of
shards, a data set's name), an image-caption list, or a folder of images with one such list. A list is one of

- `.csv`: the first line names the columns; commas, semicolons, tabs or bars between them.
- `.tsv`, `.txt`: the same with tabs, or without a first line `path<TAB>caption`. Quotation marks are letters.
- `.jsonl`, `.ndjson`: an object a line with such names, or `path<TAB>caption`.

Paths are relative to the list's folder, absolute, or URLs. Columns of other names become metadata.
"""

import contextlib
import csv
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import fsspec
from fsspec.implementations.local import LocalFileSystem
from webdataset.shardlists import expand_urls

from mcliplib.data.reader import IMAGE_EXTENSIONS, Members, image_extension, raw_samples
from mcliplib.data.registry import shard_paths
from mcliplib.errors import MissingFileError, UserError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
_LONGEST_KEY = 88  # bytes; a tar's name has 100, and the longest extension is `.paug.json`
Input = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
IMAGE_COLUMNS = ("image", "filename", "file_name", "file", "path", "filepath", "file_path", "image_path", "image_name")
CAPTION_COLUMNS = ("caption", "text", "title", "description", "comment")
KEY_COLUMNS = ("key", "__key__", "id")
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}
_AT_ONCE = 64  # images in memory
_TRIED = 3  # images of a list that are looked for at once
_READERS = 8
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RawSample:
    """One sample as its source holds it.

    Attributes:
        key: name for the members of the output; neither dots nor slashes.
        image: the encoded bytes; empty where there are none.
        image_extension: without a dot.
        caption: stripped.
        url: where the image comes from; may be empty.
        uid: the source's own name of it; may be empty.
        meta: what else the source says.
        fault: why the sample cannot be used; empty where nothing is known against it.
    """

    key: str
    image: bytes = b""
    image_extension: str = ""
    caption: str = ""
    url: str = ""
    uid: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


@runtime_checkable
class Source(Protocol):
    """The samples that become one output shard.

    Attributes:
        name: for messages and the manifest.
    """

    @property
    def name(self) -> str: ...

    def read(self, broken: dict[str, str]) -> Iterator[RawSample]:
        """All samples, faulty ones too, in the same order at each call; what breaks off is noted in `broken`."""


def find_sources(input: Input, shard_size: int) -> list[Source]:
    """The sources that the input stands for, in order.

    Args:
        input: one name or several, as the module says.
        shard_size: how many entries of a list make one source; a shard stays whole.

    Raises:
        UserError: a name stands for nothing, or a list cannot be read.
    """
    names = [input] if isinstance(input, str | os.PathLike) else list(input)
    found = [source for name in names for source in _resolve(os.fspath(name), shard_size)]
    if not found:
        raise UserError("the input names no shards and no list")
    return found


def safe_key(name: str) -> str:
    """The name without dots and slashes and short enough for a tar; different names give different keys."""
    escaped = name.replace("%", "%25").replace("/", "%2F").replace(".", "%2E") or "%"
    encoded = escaped.encode(errors="replace")
    if len(encoded) <= _LONGEST_KEY:
        return encoded.decode()
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:24]
    return encoded[: _LONGEST_KEY - 25].decode(errors="ignore") + "~" + digest


def make_sample(key: str, image: bytes, extension: str, caption: str, meta: Any, url: str = "") -> RawSample:
    """The sample, or its fault; `meta` is the source's JSON as bytes, or a mapping."""
    try:
        named = json.loads(meta) if isinstance(meta, bytes) else dict(meta)
        json.dumps(named, ensure_ascii=False).encode()  # half of a surrogate pair could not be written again
    except (ValueError, RecursionError):
        named = None
    if not isinstance(named, dict):
        return RawSample(key, fault="bad metadata")
    caption = _string(caption.strip() or named.get("caption")).strip()
    if not image:
        return RawSample(key, caption=caption, fault="missing image")
    if not caption:
        return RawSample(key, fault="missing caption")
    url = url.strip() or _string(named.get("url"))
    uid, digest = _string(named.pop("uid", "")), named.pop("sha256", "")
    if digest and digest != hashlib.sha256(image).hexdigest():
        named["source_sha256"] = digest  # of another encoding than the one that is here
    return RawSample(key, image, extension, caption, url, uid, named)


def open_fs(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it.

    Raises:
        UserError: no such protocol, or its package is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(os.path.expanduser(url))
    except (ImportError, ValueError) as error:
        protocol = url.partition("://")[0]
        cure = f"; try: pip install 'fsspec[{protocol}]'" if isinstance(error, ImportError) else ""
        raise UserError(f"{url}: cannot read {protocol}:// ({error}){cure}") from error
    return fs, path


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[str]:
    """A path on this machine with the file's content; a temporary one if the file is elsewhere."""
    fs, path = open_fs(url)
    if isinstance(fs, LocalFileSystem):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mcliplib-") as folder:
        target = str(Path(folder) / "shard")
        fs.get_file(path, target)
        yield target


def _resolve(name: str, shard_size: int) -> list[Source]:
    if "{" in name:
        return [source for one in expand_urls(name) for source in _resolve(one, shard_size)]
    fs, path = open_fs(name)
    if not fs.exists(path):
        return [source for one in _matches(fs, path, name) for source in _resolve(one, shard_size)]
    if fs.isdir(path):
        return [source for one in _in_folder(fs, path, name) for source in _resolve(one, shard_size)]
    if name.endswith(TAR_SUFFIXES):
        return [TarSource(name)]
    if name.lower().endswith(LIST_SUFFIXES):
        return list_sources(name, shard_size)
    raise UserError(f"{name}: a shard ends in {', '.join(TAR_SUFFIXES)}, a list in {', '.join(LIST_SUFFIXES)}")


def _matches(fs: fsspec.AbstractFileSystem, path: str, name: str) -> Sequence[str]:
    """Resolve a name that is no file: a glob, or a data set of this package."""
    if any(mark in name for mark in "*?["):
        if found := sorted(fs.glob(path)):
            return [_named(fs, one) for one in found]
        raise UserError(f"{name}: nothing matches")
    if "/" in name or os.sep in name or name.endswith(TAR_SUFFIXES + LIST_SUFFIXES):
        raise MissingFileError(f"{name}: no such file or folder")
    try:
        return [str(one) for one in shard_paths(name)]
    except UserError as error:
        raise MissingFileError(f"{name}: no such file or folder, and {error}") from error


def _in_folder(fs: fsspec.AbstractFileSystem, path: str, name: str) -> Sequence[str]:
    """The shards of a folder, or else its one list."""
    files = sorted(fs.ls(path, detail=False))
    if shards := [one for one in files if one.endswith(TAR_SUFFIXES)]:
        return [_named(fs, one) for one in shards]
    lists = [one for one in files if one.lower().endswith(LIST_SUFFIXES)]
    lists = [one for one in lists if not one.lower().endswith(".txt")] or lists
    if len(lists) > 1:
        raise UserError(
            f"{name}: has several lists, {', '.join(one.rpartition('/')[2] for one in lists[:3])}: name one"
        )
    if not lists:
        raise UserError(
            f"{name}: holds neither shards nor a list of captions; put a .csv beside the pictures, "
            "with the first line `image,caption` and a line for each picture"
        )
    return [_named(fs, lists[0])]


def _named(fs: fsspec.AbstractFileSystem, path: str) -> str:
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _string(value: Any) -> str:
    """Text that can be written as UTF-8."""
    return "" if value is None else str(value).encode(errors="replace").decode()


@dataclass(frozen=True)
class Entry:
    """One line of a list; `fault` tells why there is no more than the line's number to it."""

    key: str
    url: str = ""
    caption: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class ListSource:
    """Some consecutive entries of a list."""

    name: str
    entries: tuple[Entry, ...]

    def read(self, broken: dict[str, str]) -> Iterator[RawSample]:
        """The entries with their images' bytes; nothing breaks off here."""
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(self.entries), _AT_ONCE):
                yield from pool.map(_read_entry, self.entries[start : start + _AT_ONCE])


def list_sources(url: str, shard_size: int) -> list[Source]:
    """The list at this path or URL, cut into sources of `shard_size` entries.

    Raises:
        UserError: the list is empty, is no text, or does not say which column is which.
    """
    fs, path = open_fs(url)
    try:
        lines = fs.read_text(path, encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: is not UTF-8 text ({error}); save it as UTF-8") from error
    rows = _json_rows(lines) if url.lower().endswith((".jsonl", ".ndjson")) else _table_rows(lines, url)
    entries = _entries(rows, url)
    if not entries:
        raise UserError(f"{url}: names no images")
    _check_there(entries, url)
    parts = [tuple(entries[start : start + shard_size]) for start in range(0, len(entries), shard_size)]
    name = PurePosixPath(path).name
    return [ListSource(f"{name}[{number * shard_size}:]", part) for number, part in enumerate(parts)]


def _check_there(entries: Sequence[Entry], url: str) -> None:
    """Raises a UserError where none of the first images exists: better now than after the whole list was tried."""
    first = [entry.url for entry in entries if not entry.fault][:_TRIED]
    if not first or any(fs.exists(path) for fs, path in map(open_fs, first)):
        return
    raise UserError(f"{url}: no image at {first[0]}; paths are absolute or relative to the folder of the list")


def _json_rows(lines: Sequence[str]) -> list[Row | None]:
    rows: list[Row | None] = []
    for line in filter(str.strip, lines):
        try:
            value = json.loads(line)
        except ValueError:
            path, tab, caption = line.partition("\t")
            value = {"image": path, "caption": caption} if tab else None
        rows.append({_plain(name): cell for name, cell in value.items()} if isinstance(value, dict) else None)
    return rows


def _table_rows(lines: Sequence[str], url: str) -> list[Row | None]:
    lines = [line for line in lines if line.strip()]
    if not lines:
        return []
    tabs = not url.lower().endswith(".csv")
    delimiter = "\t" if tabs else max(",;\t|", key=lines[0].count)
    try:
        table = list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL))
    except csv.Error as error:
        raise UserError(f"{url}: {error}") from error
    names = [_plain(cell) for cell in table[0]]
    if _column(names, IMAGE_COLUMNS) and _column(names, CAPTION_COLUMNS):
        return [dict(zip(names, cells, strict=False)) for cells in table[1:]]
    if tabs:
        return [{"image": cells[0], "caption": " ".join(cells[1:])} for cells in table]
    raise UserError(
        f"{url}: the first line must name an image column ({', '.join(IMAGE_COLUMNS)}) "
        f"and a caption column ({', '.join(CAPTION_COLUMNS)}), as `image,caption` does, and names {', '.join(table[0])}"
    )


def _entries(rows: Sequence[Row | None], url: str) -> list[Entry]:
    folder = url.replace("\\", "/").rpartition("/")[0]
    met: Counter[str] = Counter()
    entries = []
    for number, row in enumerate(rows):
        image = _column(row or {}, IMAGE_COLUMNS)
        if row is None or not image:
            entries.append(Entry(f"line-{number:08d}", fault="bad metadata"))
            continue
        path = str(row[image]).strip()
        caption, named = _column(row, CAPTION_COLUMNS), _column(row, KEY_COLUMNS)
        key = str(row[named]) if named else _key_of(path)
        if not named:  # an image with several captions is several samples
            met[key] += 1
            key += f"~{met[key]}" if met[key] > 1 else ""
        meta = {name: cell for name, cell in row.items() if name not in (image, caption, named)}
        entries.append(Entry(safe_key(key), _located(path, folder), _text(row.get(caption)), meta))
    return entries


def _read_entry(entry: Entry) -> RawSample:
    if entry.fault:
        return RawSample(entry.key, fault=entry.fault)
    fs, path = open_fs(entry.url)
    try:
        image = fs.cat_file(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        image = b""
    extension = PurePosixPath(path).suffix[1:].lower()
    if extension not in IMAGE_EXTENSIONS:
        extension = next((known for magic, known in _MAGIC.items() if image.startswith(magic)), "")
        if image and not extension:
            return RawSample(entry.key, caption=entry.caption, fault="image neither JPEG, PNG nor WebP")
    return make_sample(entry.key, image, extension, entry.caption, entry.meta)


def _column(row: Row | Sequence[str], known: Sequence[str]) -> str:
    """The first of the known names that the row has, or nothing."""
    return next((name for name in known if name in row), "")


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _key_of(path: str) -> str:
    """A relative path without its extension, of others the name."""
    whole = PurePosixPath(path.replace("\\", "/"))
    elsewhere = "://" in path or whole.is_absolute()
    return whole.stem if elsewhere else str(whole.with_suffix("")) if whole.name else str(whole)


def _located(path: str, folder: str) -> str:
    path = path if "://" in path else path.replace("\\", "/")  # a list from Windows
    return path if "://" in path or path.startswith("/") or not folder else f"{folder}/{path}"


@dataclass(frozen=True)
class TarSource:
    """One shard, `.tar` or `.tar.gz`, anywhere that fsspec reaches."""

    url: str

    @property
    def name(self) -> str:
        """The file and its folder: what tells `shard-000000.tar` of one set from that of another."""
        return "/".join(self.url.replace("\\", "/").split("/")[-2:])

    def read(self, broken: dict[str, str]) -> Iterator[RawSample]:
        """All samples in the shard's order.

        Raises:
            UserError: the file is no tar archive.
        """
        with local_copy(self.url) as path:
            for key, members in raw_samples(path, broken, name=self.name):
                sample = _sample(key, members)
                if self.name in broken and sample.fault.startswith("missing"):
                    continue  # the sample that the shard breaks off in
                yield sample


def _sample(key: str, members: Members) -> RawSample:
    extension = image_extension(members) or ""
    caption, url = (members.get(name, b"").decode(errors="replace") for name in ("txt", "url.txt"))
    return make_sample(safe_key(key), members.get(extension, b""), extension, caption, members.get("json", b"{}"), url)
