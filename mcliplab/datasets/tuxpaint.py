"""Tux Paint stamps with their English sentences, split by picture and caption into training and held-out retrieval."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mcliplab.datasets.draft import Draft, fit_square, make_draft, render_svg, same_words, stable_order, trimmed
from mcliplab.datasets.fingerprint import distances, fingerprints
from mcliplib.images import on_white

SIZE = 80  # px
HELD_OUT = 240
_SAME_SHAPE = 8  # bits of the hash: recoloured variants of one drawing, whatever their colours
_MOST_TOGETHER = 4  # larger families (crayons, coins, letters) stay in training
_DRAWN = re.compile(
    r"/(cartoon|roadsigns|flags|hanukkah|toys|body_parts)/|^(symbols|clothes|naturalforces)/|^seasonal/(easter|halloween)/"
)
_BLANK = 2.0  # standard deviation of the grey values, of 255


def drafts(package: Path) -> list[Draft]:
    """Every stamp with an English caption; of a PNG and an SVG of one name the PNG is taken."""
    return list(_read(package / "usr/share/tuxpaint/stamps"))


def _read(root: Path) -> Iterator[Draft]:
    for text in sorted(root.rglob("*.txt")):
        with text.open(encoding="utf-8", errors="replace") as lines:
            caption = lines.readline().strip()
        picture = next((p for p in (text.with_suffix(".png"), text.with_suffix(".svg")) if p.is_file()), None)
        if not caption or picture is None or "=" in caption:
            continue
        place = picture.relative_to(root)
        try:
            image = _load(picture)
        except (ValueError, OSError):
            continue
        if np.asarray(image).std() < _BLANK:  # drawn in white on nothing
            continue
        photo = picture.suffix == ".png" and not _DRAWN.search(str(place)) and is_photographic(image)
        yield make_draft(
            f"tuxpaint-{place.with_suffix('')}",
            image,
            caption,
            drawing=not photo,
            category=place.parts[0],
            style="photo" if photo else "drawing",
            keywords=[part for part in place.parent.parts if part != "cartoon"],
            source=str(place),
            licence="GPL-2.0-only",
            author="Tux Paint stamps contributors (Bill Kendrick and others)",
        )


def _load(picture: Path) -> Image.Image:
    if picture.suffix == ".svg":
        return render_svg(picture.read_text(encoding="utf-8", errors="replace"), SIZE, trim=True)
    with Image.open(picture) as opened:
        return fit_square(trimmed(on_white(opened)), SIZE)


def is_photographic(image: Image.Image) -> bool:
    """Whether the content has the many shades of a photograph: a sixth as many as it has pixels."""
    pixels = np.asarray(image).reshape(-1, 3)
    content = pixels[pixels.min(axis=1) < 245] // 4
    return len(content) > 200 and len(np.unique(content, axis=0)) > len(content) / 6


def split(stamps: list[Draft]) -> tuple[list[Draft], list[Draft]]:
    """Training and held-out stamps. Pictures of one caption, name or shape stay on one side.

    Held out are families of at most `_MOST_TOGETHER` with photographs only used from them, one per caption,
    until there are `HELD_OUT`. What a held-out family has beyond that is in neither side.
    """
    families = _families(stamps)
    held: list[Draft] = []
    held_families: set[int] = set()
    for number in sorted(families, key=lambda number: stable_order(families[number][0].key)):
        family = families[number]
        photos = {same_words(stamp.caption): stamp for stamp in family if stamp.meta["style"] == "photo"}
        if photos and len(family) <= _MOST_TOGETHER and len(held) < HELD_OUT:
            held += photos.values()
            held_families.add(number)
    train = [stamp for number, family in families.items() if number not in held_families for stamp in family]
    return sorted(train, key=lambda stamp: stamp.key), sorted(held, key=lambda stamp: stamp.key)


def _families(stamps: list[Draft]) -> dict[int, list[Draft]]:
    """Connected groups of stamps under: same caption, same file name but for numbers and colours, same shape."""
    leader = list(range(len(stamps)))

    def find(one: int) -> int:
        while leader[one] != one:
            one = leader[one]
        return one

    first: dict[str, int] = {}
    for index, stamp in enumerate(stamps):
        stem = re.sub(r"[\d_ -]+$|_(red|blue|green|yellow|black|white|mirror)$", "", Path(stamp.meta["source"]).stem)
        for mark in (f"caption {same_words(stamp.caption)}", f"name {stem.lower()}"):
            leader[find(index)] = find(first.setdefault(mark, index))
    prints = fingerprints([stamp.image for stamp in stamps])
    for one, other in np.argwhere(np.triu(distances(prints, prints)[0] <= _SAME_SHAPE, 1)):
        leader[find(int(other))] = find(int(one))
    families: dict[int, list[Draft]] = defaultdict(list)
    for index, stamp in enumerate(stamps):
        families[find(index)].append(stamp)
    return dict(families)
