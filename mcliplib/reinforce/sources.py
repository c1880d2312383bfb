"""The input of a run: samples as their source holds them, with encoded image, caption and metadata.

`find_sources` takes what a user may name: WebDataset shards (a path, a URL of fsspec, a glob, braces, a folder of
shards, a data set's name), an image-caption list, or a folder of images with one such list or with a text file beside
each image (`a.png`, `a.txt`). A list is one of

- `.csv`: the first line names the columns; commas, semicolons, tabs or bars between them.
- `.tsv`, `.txt`, `.token`: the same with tabs, or without a first line `path<TAB>caption`. Quotation marks are letters.
  Where the first line is `image,caption` (as in Flickr8k), the caption goes from the comma to the end of its line.
- `.jsonl`, `.ndjson`: an object a line with such names, or `path<TAB>caption`; `caption` may be a list of several.

Paths are relative to the list's folder (or to the one folder in it that has the images), absolute, or URLs. Columns of
other names become metadata. A line that is not of its list's form is a faulty sample, named after its number.
"""

import contextlib
import csv
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable
from unicodedata import normalize

import fsspec
from fsspec.implementations.local import LocalFileSystem

from mcliplib.data.reader import IMAGE_EXTENSIONS, Members, ReadReport, Skip, image_extension, raw_samples
from mcliplib.data.registry import shard_paths
from mcliplib.data.shards import MAX_MEMBER, MAX_TEXT, TAR_SUFFIXES, expand_braces, safe_key, url_to_fs
from mcliplib.errors import MissingFileError, UserError
from mcliplib.files import blaming, read_bytes, read_json

LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".token", ".jsonl", ".ndjson")
Input = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
IMAGE_COLUMNS = ("image", "filename", "file_name", "file", "path", "filepath", "file_path", "image_path", "image_name")
CAPTION_COLUMNS = ("caption", "text", "title", "description", "comment")
KEY_COLUMNS = ("key", "__key__", "id")
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}
_AT_ONCE = 64  # images in memory
_TRIED = 100  # images of a list that are looked for at once
_READERS = 8
_MAX_LIST = 1 << 30  # bytes; CC3M's captions are half of it
_MAX_LINES = 100  # of one row, whose quoted caption may have line breaks
_WEB = ("http://", "https://")
_WAITS = (0.2, 1.0, 0.0)  # seconds after each failed request
_PATIENCE = 60.0  # seconds for one picture
Row = Mapping[str, Any]
Rows = list[tuple[int, Row | None]]  # number of its line; None where the line is not of the list's form


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
    finder, found = _Finder(shard_size), list[Source]()
    for name in [str(os.fspath(one)) for one in names]:
        with blaming(f"{name}: cannot be read"):  # each protocol's package has errors of its own
            found += finder.named(name)
    if not found:
        raise UserError("the input names no shards and no list")
    return found


def usable(source: Source, report: ReadReport, max_skipped: float) -> Iterator[RawSample]:
    """The samples of a source that have no fault; the others are counted.

    Args:
        source: to read.
        report: notes what was read and left out, and what breaks off.
        max_skipped: largest share (0 to 1) of samples left out that is still accepted.

    Raises:
        UserError: more was left out.
    """
    broken: dict[str, str] = {}
    for sample in source.read(broken):
        if sample.fault:
            report.skip(Skip(source.name, sample.key, sample.fault), max_skipped)
        else:
            report.read += 1
            yield sample
    report.broken_shards.update(broken)


def make_sample(key: str, image: bytes, extension: str, caption: str, meta: Any, url: str = "") -> RawSample:
    """The sample, or its fault; `meta` is the source's JSON as bytes, or a mapping."""
    try:
        named = read_json(meta, key, MAX_TEXT) if isinstance(meta, bytes) else dict(meta)
        json.dumps(named, ensure_ascii=False).encode()  # half of a surrogate pair could not be written again
    except (ValueError, RecursionError):
        named = None
    if not isinstance(named, dict):
        return RawSample(key, fault="bad metadata")
    caption = caption.strip() or _text(named.get("caption")).strip()
    if not image:
        return RawSample(key, caption=caption, fault="missing image")
    if not caption:
        return RawSample(key, fault="missing caption")
    url = url.strip() or _string(named.get("url"))
    uid, digest = _string(named.get("uid")), named.pop("sha256", "")
    if (given := named.pop("uid", None)) and not uid:
        named["source_uid"] = given  # a list or an object, which names nothing
    if digest and digest != hashlib.sha256(image).hexdigest():
        named["source_sha256"] = digest  # of another encoding than the one that is here
    return RawSample(key, image, extension, caption, url, uid, named)


def open_fs(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it.

    Raises:
        UserError: no such protocol, or its package is not installed.
    """
    fs, path = url_to_fs(os.path.expanduser(url))
    return fs, _on_disk(path) if isinstance(fs, LocalFileSystem) else path


def _on_disk(path: str) -> str:
    """The path as it is stored: the disk may hold é as one character, the list as two, and the other way round."""
    if path.isascii() or os.path.lexists(path):
        return path
    found = ""
    for part in Path(path).parts:
        forms = [os.path.join(found, form) for form in (part, normalize("NFC", part), normalize("NFD", part))]
        found = next(filter(os.path.lexists, forms), forms[0])
    return found


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[str]:
    """A path on this machine with the file's content; a temporary one if the file is elsewhere.

    Raises:
        UserError: it cannot be fetched.
    """
    fs, path = open_fs(url)
    if isinstance(fs, LocalFileSystem):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mcliplib-") as folder:
        target = str(Path(folder) / "shard")
        with blaming(f"{url}: cannot be fetched", "; start again when it can"):
            fs.get_file(path, target)
        yield target


@dataclass(frozen=True)
class _Finder:
    """The way from names to sources.

    Attributes:
        shard_size: how many entries of a list make one source.
        taken: how often each key of a list's entry was wanted, over all lists.
    """

    shard_size: int
    taken: Counter[str] = field(default_factory=Counter)

    def named(self, name: str, *, braces: bool = True) -> list[Source]:
        fs, path = open_fs(name)
        if not fs.exists(path):
            expanded = expand_braces(name) if braces and "{" in name else [name]
            if expanded != [name]:
                return [source for one in expanded for source in self.named(one, braces=False)]
            return [source for one in _matches(fs, path, name) for source in self.named(one, braces=False)]
        if fs.isdir(path):
            return self._in_folder(fs, path, name)
        if name.lower().endswith(TAR_SUFFIXES):
            return [TarSource(name)]
        if name.lower().endswith(LIST_SUFFIXES):
            return self._cut(name, _list_entries(name, self.taken))
        raise UserError(f"{name}: a shard ends in {', '.join(TAR_SUFFIXES)}, a list in {', '.join(LIST_SUFFIXES)}")

    def _in_folder(self, fs: fsspec.AbstractFileSystem, path: str, name: str) -> list[Source]:
        """The shards of a folder, or else its one list, or else its images with a text file beside each."""
        files = sorted(one for one in fs.ls(path, detail=False) if not _base(one).startswith("."))
        if shards := [one for one in files if one.lower().endswith(TAR_SUFFIXES)]:
            return [TarSource(_named(fs, one)) for one in shards]
        lists = [one for one in files if one.lower().endswith(LIST_SUFFIXES)]
        tables = [one for one in lists if not one.lower().endswith(".txt")]
        images: list[str] = []
        if not tables:
            below = _files_below(fs, path)
            images = [one for one in below if PurePosixPath(one).suffix[1:].lower() in IMAGE_EXTENSIONS]
            texts = {normalize("NFC", one[:-4]): one for one in below if one.endswith((".txt", ".TXT"))}
            if any(_stem(one) in texts for one in images):
                return self._cut(name, [self._beside(fs, path, one, texts.get(_stem(one))) for one in images])
        lists = tables or lists
        if len(lists) > 1:
            raise UserError(f"{name}: has several lists, {', '.join(map(_base, lists[:3]))}: name one")
        if not lists:
            example = images[0].removeprefix(path).lstrip("/") if images else "a.png"
            raise UserError(
                f"{name}: holds neither shards nor a list of captions; put a .csv beside the pictures, with the first "
                f'line `image,caption` and a line for each picture, as `{example},"a red flag"`'
            )
        return self.named(_named(fs, lists[0]), braces=False)

    def _beside(self, fs: fsspec.AbstractFileSystem, folder: str, image: str, text: str | None) -> RawSample:
        key = _new_key(_key_of(image.removeprefix(folder).lstrip("/")), self.taken)
        try:
            caption = _content(_named(fs, text), MAX_TEXT).decode("utf-8-sig") if text else ""
        except (ValueError, OSError, _UnusableError):
            return RawSample(key, fault="caption is not UTF-8, or too long")
        return RawSample(key, caption=caption, url=_named(fs, image))

    def _cut(self, name: str, entries: Sequence[RawSample]) -> list[Source]:
        starts = range(0, len(entries), self.shard_size)
        return [
            ListSource(f"{_base(name)}[{start}:]", tuple(entries[start : start + self.shard_size])) for start in starts
        ]


def _matches(fs: fsspec.AbstractFileSystem, path: str, name: str) -> Sequence[str]:
    """Resolve a name that is no file: a glob, or a data set of this package."""
    if any(mark in name for mark in "*?["):
        if found := sorted(fs.glob(path)):
            return [_named(fs, one) for one in found]
        raise UserError(f"{name}: nothing matches")
    if "/" in name or os.sep in name or name.lower().endswith(TAR_SUFFIXES + LIST_SUFFIXES):
        raise MissingFileError(f"{name}: no such file or folder")
    try:
        return [str(one) for one in shard_paths(name)]
    except UserError as error:
        raise MissingFileError(f"{name}: no such file or folder, and {error}") from error


def _files_below(fs: fsspec.AbstractFileSystem, path: str) -> list[str]:
    """All files in a folder and below, sorted; links to folders are not followed, which may run in loops."""
    if not isinstance(fs, LocalFileSystem):
        found = [one.removeprefix(path) for one in fs.find(path)]
    else:
        found = [f"{folder}/{one}".removeprefix(path) for folder, _, files in os.walk(path) for one in files]
    return sorted(path + one for one in found if not re.search(r"/(\.|__MACOSX/)", one))


def _base(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _stem(path: str) -> str:
    return normalize("NFC", str(PurePosixPath(path).with_suffix("")))


def _named(fs: fsspec.AbstractFileSystem, path: str) -> str:
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _string(value: Any) -> str:
    """Text, or a number as text, that can be written as UTF-8; nothing for what is neither."""
    return str(value).encode(errors="replace").decode() if isinstance(value, str | int | float) else ""


@dataclass(frozen=True)
class ListSource:
    """Some consecutive entries of a list: samples without an image, whose `url` tells where that is."""

    name: str
    entries: tuple[RawSample, ...]

    def read(self, broken: dict[str, str]) -> Iterator[RawSample]:
        """The entries with their images' bytes; nothing breaks off here."""
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(self.entries), _AT_ONCE):
                yield from pool.map(_read_entry, self.entries[start : start + _AT_ONCE])


def _list_entries(url: str, taken: Counter[str]) -> list[RawSample]:
    """The entries of the list at this path or URL.

    Raises:
        UserError: the list is empty, too large, is no text, or does not say which column is which.
    """
    try:
        text = _content(url, _MAX_LIST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: is not UTF-8 text ({error}); save it as UTF-8") from error
    if text[:1000].count("\0") > len(text[:1000]) / 4:
        raise UserError(f"{url}: is not UTF-8 text (it holds NUL characters, as UTF-16 does); save it as UTF-8")
    text = text if "\n" in text else text.replace("\r", "\n")
    lines = io.StringIO(text, newline="\n").readlines()  # other separators of lines may stand in a caption
    as_json = url.lower().endswith((".jsonl", ".ndjson"))
    rows = _json_rows(lines) if as_json else _table_rows(lines, url)
    if not rows:
        raise UserError(f"{url}: names no images")
    if not any(row for _, row in rows):
        table = '`a.png,"a red flag"`' if url.lower().endswith(".csv") else "`a.png`, a tab, `a red flag`"
        example = '{"image": "a.png", "caption": "a red flag"}' if as_json else table
        raise UserError(f"{url}: none of its lines names an image and a caption; a line is {example}")
    return _entries(rows, _folder_of(rows, url), taken)


def _folder_of(rows: Rows, url: str) -> str:
    """The folder that paths are relative to: the list's, or the only one in it that holds the first images.

    Raises:
        UserError: none of the first images exists: better now than after the whole list was tried.
    """
    folder = url.replace("\\", "/").rpartition("/")[0]
    paths = list(itertools.islice((path for _, row in rows if row and (path := _image_of(row))), _TRIED))
    if not paths or any(_may_exist(_located(path, folder)) for path in paths):
        return folder
    fs, here = open_fs(folder or ".")
    inner = [_named(fs, one["name"]) for one in fs.ls(here, detail=True) if one["type"] == "directory"]
    found = [one for one in inner if any(_may_exist(_located(path, one)) for path in paths[:3])]
    if len(found) == 1:
        return found[0]
    raise UserError(
        f"{url}: no image at {_located(paths[0], folder)}; paths are absolute or relative to the folder of the list"
    )


def _may_exist(url: str) -> bool:
    if url.startswith(_WEB):
        return True
    with contextlib.suppress(Exception):  # each protocol's package has errors of its own
        fs, path = open_fs(url)
        return bool(fs.exists(path))
    return False


def _json_rows(lines: Sequence[str]) -> Rows:
    rows: Rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = read_json(line, most=MAX_TEXT)
        except UserError:
            path, tab, caption = line.strip("\r\n").partition("\t")
            value = {"image": path, "caption": caption} if tab and "\t" not in caption and line[0] not in "[{" else None
        row = {_plain(name): cell for name, cell in value.items()} if isinstance(value, dict) else {}
        rows.append((number, row if row and len(row) == len(value) else None))
    return rows


def _table_rows(lines: Sequence[str], url: str) -> Rows:
    first = next((line for line in lines if line.strip()), "")
    tabs = not url.lower().endswith(".csv")
    image, _, caption = _plain(first).partition(",")
    rest = tabs and image in IMAGE_COLUMNS and caption in CAPTION_COLUMNS
    delimiter = "," if rest else "\t" if tabs else max(",;\t|", key=first.count)
    table = list(_cells(lines, delimiter, quotes=rest or not tabs))
    names = [_plain(cell) for cell in _trimmed(table[0][1] or [], 0)] if table else []
    named = bool(_column(names, IMAGE_COLUMNS) and _column(names, CAPTION_COLUMNS))
    if table and not tabs and not named:
        raise UserError(
            f"{url}: the first line must name an image column ({', '.join(IMAGE_COLUMNS)}) and a caption column "
            f"({', '.join(CAPTION_COLUMNS)}), as `image,caption` does, and names {', '.join(table[0][1] or [])}"
        )
    if named:
        _check_names(names, url)
    columns, rows = names if named else ["image", "caption"], Rows()
    for number, cells in table[1:] if named else table:
        if rest and cells and len(cells) > 2 and '"' not in lines[number - 1]:
            cells = [cells[0], lines[number - 1].partition(",")[2]]
        cells = _trimmed(cells or [], len(columns))
        if len(cells) != len(columns) or any("\0" in cell for cell in cells):
            rows.append((number, None))
            continue
        if not named:
            cells = [re.sub(r"(\.\w+)#\d+$", r"\1", cells[0]), cells[1]]  # Flickr's: which of its captions it is
        rows.append((number, dict(zip(columns, cells, strict=True))))
    return rows


def _cells(lines: Sequence[str], delimiter: str, *, quotes: bool) -> Iterator[tuple[int, list[str] | None]]:
    """Number of its first line and cells of each row; no cells where it is broken: the next row begins a line later."""
    start = 0

    def following(first: int) -> Iterator[str]:
        for place in range(first, len(lines)):
            if place - start >= _MAX_LINES:
                raise csv.Error("a quotation mark is not closed")
            yield lines[place]

    while start < len(lines):
        begin = start
        reader = csv.reader(
            following(begin),
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
            strict=True,
            skipinitialspace=delimiter != "\t",
        )
        try:
            for cells in reader:
                if any(map(str.strip, cells)):
                    yield start + 1, cells
                start = begin + reader.line_num
        except csv.Error:
            yield start + 1, None
            start += 1


def _check_names(names: Sequence[str], url: str) -> None:
    """Raises a UserError where two columns have one name; warns where several may be the image or the caption."""
    if len(set(names)) < len(names):
        raise UserError(f"{url}: two columns are named {Counter(names).most_common(1)[0][0]!r}; rename one of them")
    for what, known in (("images", IMAGE_COLUMNS), ("captions", CAPTION_COLUMNS)):
        if len(found := [name for name in known if name in names]) > 1:
            warnings.warn(f"{url}: {what} are taken from column {found[0]!r}, not {found[1]!r}", stacklevel=2)


def _trimmed(cells: list[str], least: int) -> list[str]:
    """Without the empty cells that spreadsheets put behind a row."""
    while len(cells) > least and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _image_of(row: Row) -> str:
    return _text(row.get(_column(row, IMAGE_COLUMNS))).strip()


def _entries(rows: Rows, folder: str, taken: Counter[str]) -> list[RawSample]:
    entries = []
    for number, row in rows:
        if row is None or not (path := _image_of(row)):
            entries.append(RawSample(f"line-{number:08d}", fault="bad list line"))
            continue
        used = [_column(row, known) for known in (IMAGE_COLUMNS, CAPTION_COLUMNS, KEY_COLUMNS)]
        _, caption, named = used
        key = (_string(row[named]).strip() if named else "") or _key_of(path)
        meta = {name: cell for name, cell in row.items() if not name or name not in used}
        said = row[caption] if caption else None
        for one in said if isinstance(said, list) and said else [said]:  # several captions are several samples
            entries.append(RawSample(_new_key(key, taken), caption=_text(one), url=_located(path, folder), meta=meta))
    return entries


def _new_key(name: str, taken: Counter[str]) -> str:
    """The name as a key, with a number where others have it."""
    key = first = safe_key(name)
    while taken[key]:
        taken[first] += 1
        key = safe_key(f"{name}~{taken[first]}")
    taken[key] += 1
    return key


def _read_entry(entry: RawSample) -> RawSample:
    if entry.fault:
        return entry
    try:
        image = _content(entry.url)
    except FileNotFoundError:
        image = b""
    except Exception as error:  # each protocol's package has errors of its own
        said = isinstance(error, _UnusableError)
        reason = str(error) if said else f"no file that can be read, of at most {MAX_MEMBER >> 20} MiB"
        return RawSample(entry.key, caption=entry.caption, fault=reason)
    extension = PurePosixPath(entry.url).suffix[1:].lower()
    if extension not in IMAGE_EXTENSIONS:
        extension = next((known for magic, known in _MAGIC.items() if image.startswith(magic)), "")
        if image and not extension:
            return RawSample(entry.key, caption=entry.caption, fault="image neither JPEG, PNG nor WebP")
    return make_sample(entry.key, image, extension, entry.caption, entry.meta)


class _UnusableError(Exception):
    """Why a file of a list cannot be used; the text is the reason in the report."""


def _content(url: str, most: int = MAX_MEMBER) -> bytes:
    """A file that a list names.

    Raises:
        FileNotFoundError: it is not there.
        Exception: it cannot be read, or not to its end.
    """
    if url.startswith(_WEB):
        return _download(url, most)
    fs, path = open_fs(url)
    if isinstance(fs, LocalFileSystem):
        return read_bytes(Path(path), most)
    with fs.open(path, "rb") as file:
        content: bytes = file.read(most + 1)
    if len(content) > most:
        raise _UnusableError(f"file of more than {most >> 20} MiB")
    return content


def _download(url: str, most: int) -> bytes:
    """The answer of a web server; asked again where it is busy or broken, as long as that may help."""
    for wait in _WAITS:
        try:
            return _download_once(url, most)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise FileNotFoundError(url) from error
            reason = f"web server says {error.code}"
            if error.code < 500 and error.code not in (408, 429):
                break
        except http.client.IncompleteRead:
            reason = "web server's answer breaks off"
        except (OSError, http.client.HTTPException):
            reason = "web server does not answer"
        time.sleep(wait)
    raise _UnusableError(reason)


def _download_once(url: str, most: int) -> bytes:
    end = time.monotonic() + _PATIENCE
    asked = urllib.request.Request(url, headers={"User-Agent": "mcliplib"})
    with urllib.request.urlopen(asked, timeout=_PATIENCE / 4) as answer:
        content = bytearray()
        while part := answer.read1(1 << 16):
            content += part
            if len(content) > most:
                raise _UnusableError(f"file of more than {most >> 20} MiB")
            if time.monotonic() > end:
                raise TimeoutError(url)
        announced = answer.headers.get("Content-Length", "")
        if announced.isdigit() and len(content) < int(announced):
            raise http.client.IncompleteRead(bytes(content))
    return bytes(content)


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
    if members.fault:
        return RawSample(safe_key(key), caption=caption, fault=members.fault)
    return make_sample(safe_key(key), members.get(extension, b""), extension, caption, members.get("json", b"{}"), url)
