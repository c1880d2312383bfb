"""Samples of a plain WebDataset shard, with the bytes that the shard holds."""

from collections.abc import Iterator
from dataclasses import dataclass

from mcliplib.data.raw import Members, raw_samples
from mcliplib.data.reader import image_extension
from mcliplib.reinforce.sources import RawSample, local_copy, make_sample, safe_key


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
