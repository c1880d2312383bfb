"""Pairs as shards hold them, without decoding a picture."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mcliplib.data.reader import Members, image_extension, raw_samples


def encoded_pairs(shards: Iterable[Path]) -> Iterator[tuple[str, Members]]:
    """Key and members of the samples that have a picture and a caption; nothing is decoded."""
    for shard in shards:
        for key, members in raw_samples(str(shard), {}):
            if "txt" in members and image_extension(members):
                yield key, members
