"""The undecoded samples of one shard: keys and bytes, from whole shards and from broken ones."""

import tarfile
from collections.abc import Iterator

from webdataset.tariterators import base_plus_ext, tar_file_iterator

from mcliplib.data.shards import WatchedStream
from mcliplib.errors import UserError

Members = dict[str, bytes]  # extension in lower case, without the first dot -> content


def raw_samples(path: str, broken: dict[str, str], *, name: str | None = None) -> Iterator[tuple[str, Members]]:
    """Key and members of each sample, in the shard's order, on webdataset's own tar iterator.

    A member that is there already begins another sample of the same key (webdataset's own grouping ends a shard there
    with an exception).

    Args:
        path: a `.tar` or `.tar.gz`.
        broken: told why the shard ends too early, where it does, before the sample that it breaks off in is given.
        name: of the shard, in `broken` and in messages; the path unless given.

    Raises:
        UserError: the file is no tar archive.
    """
    stream = WatchedStream(path)
    try:
        key, members = "", Members()
        for file_name, content in _files(stream, name or path, broken):
            base, extension = base_plus_ext(file_name)
            if base is None:
                continue
            extension = extension.lower()
            if members and (base != key or extension in members):
                yield key, members
                members = Members()
            key = base
            members[extension] = content
        if members:
            yield key, members
    finally:
        stream.close()


def _files(stream: WatchedStream, name: str, broken: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file; a break ends the iteration and is noted."""
    met = 0
    try:
        for member in tar_file_iterator(stream):
            met += 1
            yield member["fname"], member["data"]
    except (tarfile.TarError, ValueError) as error:
        stream.broken = stream.broken or f"the archive breaks off ({str(error).splitlines()[0]})"
    stream.check_end()
    if stream.broken:
        broken[name] = stream.broken
        if not met:
            raise UserError(f"{name} is not a readable tar shard ({stream.broken}): fetch or build it again")
