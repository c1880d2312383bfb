"""GCompris photographs with names and texts: public-domain ones to train on, animals and activities to evaluate."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mcliplab.datasets.draft import PHOTO_SIZE, Draft, make_draft, shorter_side, stable_order
from mcliplab.datasets.qrc import ResourceFile
from mcliplib.data.sample import decode_image

FREE = ("LicenseRef-Public-Domain", "CC0-1.0")
ANIMALS = ("erase", "explore_world_animals", "explore_farm_animals")
ACTIVITIES = {
    "cat/tools": "tools",
    "cat/fishes": "fish",
    "cat/renewable": "renewable energy",
    "cat/monuments": "monuments",
}
_HELD_OUT_SHARE = 0.6  # of the tools, fishes and renewable energy photos; all of the categorized monuments
_NAMES = {  # file names that are misspelt, cut short or not English
    "chamaeleon": "chameleon",
    "plier": "pliers",
    "tweezer": "tweezers",
    "screw driver": "screwdriver",
    "solar": "solar energy",
    "geothermal": "geothermal energy",
    "blackslate": "blackboard",
    "buffetset": "buffet set",
    "Kutub Minar": "Qutub Minar",
    "Burj": "Burj Khalifa",
    "Le Musee": "Louvre museum",
    "Opera House": "Sydney Opera House",
    "Us Capitol": "US Capitol",
    "Empire State": "Empire State Building",
    "Great Wall": "Great Wall of China",
    "Great Pyramid": "Great Pyramid of Giza",
    "Arc De Triomphe": "Arc de Triomphe",
    "Christ The Redeemer": "Christ the Redeemer",
    "Leaning Tower Of Pisa": "Leaning Tower of Pisa",
    "Statue Of Liberty": "Statue of Liberty",
}


@dataclass(frozen=True)
class Photo:
    """One line of `gcompris_photos.tsv`: where the photo is and under what terms."""

    activity: str
    file: str
    licence: str
    source: str
    author: str


@cache
def photos() -> tuple[Photo, ...]:
    """The photos whose licence is known, as listed in the package's own credits."""
    with (Path(__file__).parent / "gcompris_photos.tsv").open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return tuple(Photo(row["activity"], row["file"], row["licence"], row["source"], row["author"]) for row in rows)


def drafts(package: Path) -> list[Draft]:
    """All listed photos. `meta["activity"]` says which set a photo is meant for; see `split`."""
    root = package / "usr/share/gcompris-qt/rcc"
    found: list[Draft] = []
    for activity in sorted({photo.activity for photo in photos()}):
        files = dict(ResourceFile(root / _archive(activity)).files())
        texts = dict(_texts(files))
        found += [_draft(photo, files, texts) for photo in photos() if photo.activity == activity]
    return found


def split(found: list[Draft]) -> tuple[list[Draft], list[Draft], list[Draft]]:
    """Training photos (public domain only), animals to evaluate, activities to evaluate."""
    animals = [draft for draft in found if draft.meta["activity"] in ANIMALS]
    held: list[Draft] = []
    for activity in ACTIVITIES:
        members = [draft for draft in found if draft.meta["activity"] == activity]
        share = 1.0 if activity == "cat/monuments" else _HELD_OUT_SHARE
        held += sorted(members, key=lambda draft: stable_order(draft.key))[: round(share * len(members))]
    kept_out = {draft.key for draft in animals + held}
    train = [draft for draft in found if draft.key not in kept_out and draft.meta["licence"] in FREE]
    return train, animals, sorted(held, key=lambda draft: draft.key)


def _archive(activity: str) -> str:
    return "categorization.rcc" if activity.startswith("cat/") else f"{activity}.rcc"


def _draft(photo: Photo, files: dict[str, bytes], texts: dict[str, tuple[str, str]]) -> Draft:
    folder = photo.activity.removeprefix("cat/")
    ending = f"/{folder}/{photo.file}" if photo.activity.startswith("cat/") else f"/{photo.file}"
    path = next(path for path in sorted(files) if path.endswith(ending))
    title, description = texts.get(Path(photo.file).name, ("", ""))
    name = title or _spoken(Path(photo.file).stem, proper="monuments" in photo.activity)
    if photo.activity in ANIMALS:
        name = name.lower()
    return make_draft(
        f"gcompris-{photo.activity}-{Path(photo.file).with_suffix('')}",
        shorter_side(decode_image(files[path]), PHOTO_SIZE),
        name,
        drawing=False,
        concept=name,
        category=ACTIVITIES.get(photo.activity, "animals" if photo.activity in ANIMALS else folder.replace("_", " ")),
        activity=photo.activity,
        style="photo",
        keywords=[],
        description=description,
        source=f"{path.removeprefix('/gcompris/src/activities/')} from {photo.source}",
        licence=photo.licence,
        author=photo.author,
    )


def _texts(files: dict[str, bytes]) -> Iterator[tuple[str, tuple[str, str]]]:
    """File name -> (title, text) from the activity's boards."""
    entry = re.compile(r'"title": qsTr\("(.*?)"\),\s*"text": qsTr\("(.*?)"\),(.*?)"x":', re.S)
    for path, content in sorted(files.items()):
        if "/resource/board/" in path and path.endswith(".qml"):
            for title, text, rest in entry.findall(content.decode("utf-8")):
                for image in re.findall(r"/([\w-]+\.webp)\"", rest):
                    yield image, (title, text)


def _spoken(stem: str, *, proper: bool) -> str:
    """Turn "measuringTape1" into "measuring tape", and the proper name "tajMahal" into "Taj Mahal"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\d+$", "", stem)).replace("_", " ")
    words = words.title() if proper and words != "monument" else words.lower()
    return _NAMES.get(words, words)
