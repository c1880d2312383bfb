"""art4apps drawings (as in pysiogame): one word and one category each, for zero-shot evaluation only."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mcliplab.datasets.draft import DRAWING_SIZE, Draft, fit_square, make_draft
from mcliplib.images import on_white

_CATEGORIES = {"clothes_n_accessories": "clothes and accessories", "fruit_n_veg": "fruit and vegetables"}


def drafts(package: Path) -> Iterator[Draft]:
    """Every drawing; the word is its file name, the category its folder."""
    root = package / "usr/share/games/pysiogame/res/images/art4apps"
    for picture in sorted(root.glob("*/*.jpg")):
        word = picture.stem.replace("_", " ")
        folder = picture.parent.name
        with Image.open(picture) as opened:
            image = fit_square(on_white(opened), DRAWING_SIZE)
        yield make_draft(
            f"art4apps-{folder}-{picture.stem}",
            image,
            word,
            drawing=True,
            concept=word,
            category=_CATEGORIES.get(folder, folder),
            style="art4apps",
            keywords=[],
            source=f"{folder}/{picture.name}",
            licence="CC-BY-SA-3.0",
            author="Smart4Kids (Art4Apps)",
        )
