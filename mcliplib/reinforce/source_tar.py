"""Samples of a plain WebDataset shard, with the bytes that the shard holds."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from webdataset.tariterators import base_plus_ext, tar_file_iterator

from mcliplib.data.reader import IMAGE_EXTENSIONS
from mcliplib.data.shards import WatchedStream
from mcliplib.errors import UserError
from mcliplib.reinforce.sources import RawSample, local_copy, make_sample, safe_key

Members = dict[str, bytes]


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
            stream = WatchedStream(path)
            try:
                for key, members in _grouped(stream, self.url):
                    sample = _sample(key, members)
                    if stream.broken and sample.fault.startswith("missing"):
                        continue  # the sample that the shard breaks off in
                    yield sample
            finally:
                stream.close()
            if stream.broken:
                broken[self.name] = stream.broken


def _grouped(stream: WatchedStream, url: str) -> Iterator[tuple[str, Members]]:
    """Key and members of each sample; a member that is there already begins another sample of the same key.

    (webdataset's own grouping ends a shard there with an exception.)
    """
    key, members = "", Members()
    for name, content in _members(stream, url):
        base, extension = base_plus_ext(name)
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


def _members(stream: WatchedStream, url: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file; a break ends the iteration and is noted on the stream."""
    met = 0
    try:
        for member in tar_file_iterator(stream):
            met += 1
            yield member["fname"], member["data"]
    except (tarfile.TarError, ValueError) as error:
        stream.broken = stream.broken or f"the archive breaks off ({str(error).splitlines()[0]})"
    stream.check_end()
    if stream.broken and not met:
        raise UserError(f"{url} is not a readable tar shard ({stream.broken}): fetch or build it again")


def _sample(key: str, members: Members) -> RawSample:
    extension = next((one for one in IMAGE_EXTENSIONS if one in members), "")
    caption, url = (members.get(name, b"").decode(errors="replace") for name in ("txt", "url.txt"))
    return make_sample(safe_key(key), members.get(extension, b""), extension, caption, members.get("json", b"{}"), url)
