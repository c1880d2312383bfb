"""Where the samples of a reinforcement run come from, each as the source holds it: encoded image, caption, metadata.

`find_sources` takes what a user may name: WebDataset shards (a path, a URL of fsspec, a glob, braces, a folder of
shards, a data set's name), an image-caption list (`.csv`, `.tsv`, `.jsonl`), or a folder of images with one such list.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import fsspec
from fsspec.implementations.local import LocalFileSystem
from webdataset.shardlists import expand_urls

from mcliplib.data.registry import shard_paths
from mcliplib.errors import UserError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
_LONGEST_KEY = 88  # bytes; a tar's name has 100, and the longest extension is `.paug.json`

Input = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


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
    """What becomes one output shard.

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
        input: one name or several, see above.
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
    from mcliplib.reinforce.source_list import list_sources
    from mcliplib.reinforce.source_tar import TarSource

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
    """What a name may be that is no file: a glob, or a data set of this package."""
    if any(mark in name for mark in "*?["):
        if found := sorted(fs.glob(path)):
            return [_named(fs, one) for one in found]
        raise UserError(f"{name}: nothing matches")
    if "/" in name or os.sep in name or name.endswith(TAR_SUFFIXES + LIST_SUFFIXES):
        raise UserError(f"{name}: no such file or folder")
    try:
        return [str(one) for one in shard_paths(name)]
    except UserError as error:
        raise UserError(f"{name}: no such file or folder, and {error}") from error


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
