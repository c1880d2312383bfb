"""Emoji in four styles, named by CLDR: three styles to train on, Fluent to evaluate on."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mcliplab.datasets.draft import DRAWING_SIZE, Draft, make_draft, render_svg

_COMPONENTS, _FLAGS = 2, 9  # CLDR groups left out: skin tones and hair; flags
_XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_NOT_A_PICTURE = re.compile(
    r"flag|logo|brand|skin-tone|-low$|openmoji|browser|^[a-z]$|schwabisch|^hfg|-indicator|stencil"
)
_LEFT_OUT = frozenset((Path(__file__).parent / "openmoji_left_out.txt").read_text(encoding="utf-8").splitlines())
AUTHORS = {
    "noto": "Google Inc",
    "twemoji": "Twitter and other Twemoji contributors",
    "openmoji": "OpenMoji",
    "fluent": "Microsoft Corporation",
}


@dataclass(frozen=True)
class Concept:
    """One CLDR emoji: its code points, English name, keywords and group."""

    code: str
    name: str
    keywords: tuple[str, ...]
    group: str


def concepts(emojibase: Path) -> list[Concept]:
    """All emoji but skin tones, hair components, flags, keycaps and regional indicators, in CLDR order."""
    folder = emojibase / "package"
    groups = json.loads((folder / "meta/groups.json").read_text(encoding="utf-8"))["groups"]
    entries = json.loads((folder / "en/data.json").read_text(encoding="utf-8"))
    kept = [
        entry
        for entry in entries
        if entry.get("group") not in (None, _COMPONENTS, _FLAGS) and not entry["label"].startswith("keycap")
    ]
    return [
        Concept(_code(entry["hexcode"]), entry["label"], tuple(entry.get("tags", ())), groups[str(entry["group"])])
        for entry in sorted(kept, key=lambda entry: entry["order"])
    ]


def drafts(style: str, package: Path, wanted: list[Concept], licence: str) -> Iterator[Draft]:
    """Each wanted concept that the style draws, rendered."""
    icons = json.loads((package / "package/icons.json").read_text(encoding="utf-8"))
    names = _names(package)
    for concept in wanted:
        name = names.get(concept.code)
        if name is None or name not in icons["icons"]:
            continue
        yield make_draft(
            f"{style}-{concept.code}",
            render_svg(_svg(icons, name), DRAWING_SIZE),
            concept.name,
            drawing=True,
            concept=concept.name,
            code=concept.code,
            category=concept.group,
            style=style,
            keywords=list(concept.keywords),
            source=f"{icons['prefix']}:{name}",
            licence=licence,
            author=AUTHORS[style],
        )


def openmoji_extras(package: Path, licence: str) -> Iterator[Draft]:
    """OpenMoji's own additions to Unicode (a 3D printer, a solar cell, ...), captioned by their names; no brands."""
    icons = json.loads((package / "package/icons.json").read_text(encoding="utf-8"))
    listed = json.loads((package / "package/metadata.json").read_text(encoding="utf-8"))["categories"]
    codes = {name: code for code, name in _names(package).items()}
    for name in sorted(listed["Extras Openmoji"]):
        if name not in codes or name not in icons["icons"] or name in _LEFT_OUT or _NOT_A_PICTURE.search(name):
            continue
        yield make_draft(
            f"openmoji-{codes[name]}",
            render_svg(_svg(icons, name), DRAWING_SIZE),
            name.replace("-", " "),
            drawing=True,
            concept=name.replace("-", " "),
            code=codes[name],
            category="openmoji extras",
            style="openmoji",
            keywords=[],
            source=f"{icons['prefix']}:{name}",
            licence=licence,
            author=AUTHORS["openmoji"],
        )


@cache
def _names(package: Path) -> dict[str, str]:
    """Code points -> icon name. A name that two code points share is left out: the icon shows only one of them.

    In OpenMoji "scroll" is both the paper scroll and, from the private use area, the wheel of a mouse.
    """
    chars: dict[str, str] = json.loads((package / "package/chars.json").read_text(encoding="utf-8"))
    by_code = {_code(code): name for code, name in chars.items()}
    uses = Counter(by_code.values())
    return {code: name for code, name in by_code.items() if uses[name] == 1}


def _code(hexcode: str) -> str:
    return hexcode.lower().replace("-fe0f", "")


def _svg(icons: dict[str, Any], name: str) -> str:
    icon = icons["icons"][name]
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return f'<svg {_XMLNS} viewBox="{box}" width="{width}" height="{height}">{icon["body"]}</svg>'
