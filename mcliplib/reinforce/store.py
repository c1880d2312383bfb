"""The output folder, on this machine or anywhere that fsspec writes to; each file appears whole or not at all.

Here is also the randomness that belongs to a sample: the same on every machine, in every process and in every order of
samples.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem
from torch import Generator

from mcliplib.data.shards import write_shard
from mcliplib.errors import UserError
from mcliplib.files import MOST_JSON, UNFINISHED, locked, read_json, replacing
from mcliplib.reinforce.sources import open_fs


def generator_of(purpose: str, seed: int, key: str) -> Generator:
    """A generator on the CPU for one use of one sample.

    Args:
        purpose: what is drawn; two purposes do not share their draws.
        seed: of the run.
        key: the sample's.
    """
    digest = hashlib.sha256(f"{purpose}/{seed}/{key}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


class Written(NamedTuple):
    """A shard in the store."""

    bytes: int
    sha256: str


class Store:
    """Files in one folder.

    Args:
        root: path or URL of the folder; made when something is written.

    Raises:
        UserError: there is no such file system, or a file is in the folder's place.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        self._fs, self._path = open_fs(self.root)
        self._local = isinstance(self._fs, LocalFileSystem)
        if self._fs.isfile(self._path):
            raise UserError(f"{self.root}: is a file; name a folder for the output")

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """One run at a time writes here (see `mcliplib.files.locked`); object stores have no locks."""
        return locked(Path(self._path)) if self._local else contextlib.nullcontext()

    def names(self) -> list[str]:
        """The names of the files and folders here, sorted."""
        if not self._fs.exists(self._path):
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._path, detail=False))

    def written(self, name: str) -> Written | None:
        """Size and hash of the file's bytes; None where there is no such file."""
        digest, size = hashlib.sha256(), 0
        try:
            with self._fs.open(self._at(name), "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    size += len(block)
        except (FileNotFoundError, IsADirectoryError):
            return None
        return Written(size, digest.hexdigest())

    def read_json(self, name: str, check: Callable[[Any, str], dict[str, Any]]) -> dict[str, Any] | None:
        """The object in the file, None where there is no such file.

        Args:
            name: of the file.
            check: is given the value and the file's name; returns the value, or raises a UserError.

        Raises:
            UserError: the file is damaged.
        """
        where = f"{self.root}/{name}"
        try:
            if self._fs.info(self._at(name))["size"] > MOST_JSON:
                raise UserError(f"{where}: has more than the {MOST_JSON:,} bytes that are read")
            return check(read_json(self._fs.cat_file(self._at(name)), where), where)
        except FileNotFoundError:
            return None
        except UserError as error:
            raise UserError(f"{error}; remove it") from error
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({error.strerror or error})") from error

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write or replace the file."""
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        with self._written(name) as path:
            path.write_text(text, encoding="utf-8")

    def write_shard(self, name: str, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> Written:
        """Write or replace a shard while its samples come in."""
        with self._written(name) as path:
            write_shard(path, samples)
            with path.open("rb") as file:
                return Written(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._at(name), recursive=True)

    def clean(self) -> None:
        """Remove what killed processes left half written."""
        for name in self.names():
            if name.startswith(UNFINISHED):
                self.remove(name)

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def _written(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A temporary path to write to; on this machine beside the file that it becomes at the end."""
        return replacing(Path(self._at(name))) if self._local else self._uploaded(name)

    @contextlib.contextmanager
    def _uploaded(self, name: str) -> Iterator[Path]:
        """A path in a temporary folder; object stores show an upload when it is complete."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            yield path
            self._fs.put_file(str(path), self._at(name))
