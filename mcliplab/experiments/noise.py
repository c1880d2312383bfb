"""Captions as bad as the web's: some are of another picture, and many say little about their own."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

from mcliplib.data.sample import Sample, concept_of


@runtime_checkable
class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


_S = TypeVar("_S", bound=_Keyed)
_SAY_NOTHING = {"and", "for", "the", "with"}


def with_wrong_captions(samples: Sequence[Sample], share: float) -> list[Sample]:
    """The same pictures; a share of them has the caption and the keywords of another one.

    Args:
        samples: with different keys.
        share: see `wrong_captions`.
    """
    return [
        replace(one, caption=source.caption, meta={**one.meta, "keywords": source.meta.get("keywords", [])})
        for one, source in zip(samples, caption_sources(samples, share), strict=True)
    ]


def caption_sources(samples: Sequence[_S], share: float) -> list[_S]:
    """For each sample the one whose caption it has: itself, or another.

    Args:
        samples: with different keys.
        share: see `wrong_captions`.
    """
    by_key = {one.key: one for one in samples}
    of = wrong_captions(by_key, share)
    return [by_key[of.get(one.key, one.key)] for one in samples]


def wrong_captions(keys: Collection[str], share: float) -> dict[str, str]:
    """Choose the pictures that get another one's caption: key of the picture -> key of the one whose caption it gets.

    The chosen pictures pass their captions on in a ring, so each of them gets one caption and gives one.

    The same keys give the same answer in any order, so plain and reinforced training see the same wrong captions.

    Args:
        keys: all pictures.
        share: of them, from 0 to 1; a hash of the key decides which.
    """
    chosen = sorted((key for key in keys if part_of_one("caption", key) < share), key=lambda key: _hash("ring", key))
    return dict(zip(chosen, chosen[1:] + chosen[:1], strict=True))


def with_vague_captions(samples: Sequence[Sample], names: float) -> list[Sample]:
    """The same pictures, each with one caption and no keywords: some with their names, the others with a tag.

    A tag is one of the picture's keywords that is not its name; where it has none, one word of its caption; where that
    is a single word, the caption.

    Args:
        samples: with different keys.
        names: share of the pictures, from 0 to 1, that keep their captions; a hash of the key decides which, so that a
            larger share has those of a smaller one.
    """
    return [
        replace(
            one,
            caption=one.caption if part_of_one("named", one.key) < names else _tag(one),
            meta={**one.meta, "keywords": []},
        )
        for one in samples
    ]


def _tag(sample: Sample) -> str:
    name = concept_of(sample.caption)
    keywords = [word for word in sample.meta.get("keywords", []) if concept_of(word) != name]
    words = [word for word in re.findall(r"\w+", name) if len(word) > 2 and word not in _SAY_NOTHING]
    offered = keywords or (words if len(words) > 1 else [sample.caption])
    return str(offered[int(part_of_one("tag", sample.key) * len(offered))])


def part_of_one(what: str, name: str) -> float:
    """A stable hash, from 0 to below 1."""
    return int.from_bytes(_hash(what, name)[:8], "big") / (1 << 64)


def _hash(what: str, name: str) -> bytes:
    return hashlib.sha256(f"{what} {name}".encode()).digest()
