"""Samples of an image-caption list: a CSV with named columns, a TSV, or JSON lines.

- `.csv`: the first line names the columns; commas, semicolons, tabs or bars between them.
- `.tsv`, `.txt`: the same with tabs, or without a first line `path<TAB>caption`. Quotation marks are letters.
- `.jsonl`, `.ndjson`: an object a line with such names, or `path<TAB>caption`.

Paths are relative to the list's folder, absolute, or URLs. Columns of other names become metadata.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from mcliplib.data.reader import IMAGE_EXTENSIONS
from mcliplib.errors import UserError
from mcliplib.reinforce.sources import RawSample, Source, make_sample, open_fs, safe_key

IMAGE_COLUMNS = ("image", "filename", "file_name", "file", "path", "filepath", "file_path", "image_path", "image_name")
CAPTION_COLUMNS = ("caption", "text", "title", "description", "comment")
KEY_COLUMNS = ("key", "__key__", "id")
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}
_AT_ONCE = 64  # images in memory
_TRIED = 3  # images of a list that are looked for at once
_READERS = 8

Row = Mapping[str, Any]


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
