"""OpenClipart 0.18: public-domain drawings with the titles their authors gave, kept where a title says something."""

import contextlib
import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcliplab.datasets.draft import DRAWING_SIZE, Draft, make_draft, render_svg

_PUBLIC_DOMAIN = re.compile(r"PublicDomain|publicdomain")
# Folders of near-identical drawings or of drawings whose text says nothing about the picture.
_LEFT_OUT = (
    "buttons/",
    "computer/buttons/",
    "computer/icons/etiquette-theme/",
    "computer/icons/flat-theme/",
    "computer/icons/lemon-theme/",
    "computer/icons/svg_icons",
    "recreation/games/cards/",
    "shapes/jigsaw/",
    "shapes/stars/",
    "signs_and_symbols/flags/",
    "signs_and_symbols/led/",
    "special/",
    "unsorted/duplicates/",
)
# Not what a book for everyone shows.
_UNWELCOME = re.compile(r"sexy|stripper|shadow_babe|hide_girl|3_faces|dead_frogs|gallows|cannabis|weapons/", re.I)
_EMPTY_WORDS = re.compile(
    r"HASH\(|@|https?:|\bclip ?arts?\b|\bcollection\b|\btheme\b|\biconset\b|converted|submission|roadsigns$"
    r"|can be used|pode ser usado",
    re.I,
)
# Titles of a whole series (one even names another drawing): the file name tells what is drawn.
_SERIES = re.compile(
    r"^(Clipart by Nicu Buculei|AIGA_Symbol_Signs|SVG Road Signs|R16 sib|Homes Clipart|Map Symbols)", re.I
)
_FROM_STEM = re.compile(r"^aiga_|_(0_)?symbol_.*|[\d_.]+$|_jean.*|_ganson.*|\bmd\b.*")
_NOISE = re.compile(
    r"^This is an? (very )?(nice |detailed |vectorized |standard )*(image of |picture of )?(an? )?"
    r"| - (RPG map elements|body part|simple)\b.*|\(B and W\)|\bbw$|\.svg$|\(email.*"
)
_FOREIGN_OR_EMPTY = re.compile(
    r"^(Various Cliparts|Etiquette|Architetto|advertising|Australian Maps|Simbolo delle|Boating Rules|Le mie)"
    r"|^(fc|sm)\b",
    re.I,
)
_MOST_PER_TITLE = 12
_LARGEST_FILE = 400_000  # characters: a few tracings take seconds to render


@dataclass(frozen=True)
class _Entry:
    path: Path
    title: str
    description: str
    keywords: tuple[str, ...]
    author: str
    text: str


def drafts(package: Path) -> Iterator[Draft]:
    """The useful drawings, rendered; the blank, the unreadable and those of overused titles are left out."""
    root = package / "usr/share/openclipart/svg"
    seen: set[str] = set()
    uses: Counter[str] = Counter()
    for path in sorted(root.rglob("*.svg")):
        entry = _read(path, root)
        if entry is None or entry.text in seen or uses[entry.title.lower()] >= _MOST_PER_TITLE:
            continue
        seen.add(entry.text)
        try:
            image = render_svg(entry.text, DRAWING_SIZE, trim=True)
        except ValueError:
            continue
        if _is_blank(np.asarray(image)):
            continue
        uses[entry.title.lower()] += 1
        place = path.relative_to(root)
        yield make_draft(
            f"openclipart-{place.with_suffix('')}",
            image,
            entry.title,
            drawing=True,
            category=place.parts[0].replace("_", " "),
            style="openclipart",
            keywords=list(entry.keywords),
            description=entry.description,
            source=str(place),
            licence="LicenseRef-Public-Domain",
            author=entry.author,
        )


def _read(path: Path, root: Path) -> _Entry | None:
    """The drawing with its text, or None where it is not public domain or its text is useless."""
    place = str(path.relative_to(root))
    if place.startswith(_LEFT_OUT) or _UNWELCOME.search(place) or path.is_symlink():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    work = re.search(r"<cc:Work.*?</cc:Work>", text, re.S)
    if work is None or len(text) > _LARGEST_FILE:
        return None
    licence = re.search(r'<cc:license[^>]*resource="([^"]*)"', work[0])
    if licence is None or not _PUBLIC_DOMAIN.search(licence[1]):
        return None
    description = _field(work[0], "description")
    useful = "" if _EMPTY_WORDS.search(description) else description
    title = _title(_field(work[0], "title"), useful, path.stem)
    if title is None:
        return None
    words = (_clean(word) for word in re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", work[0], re.S))
    keywords = tuple(dict.fromkeys(word for word in words if word and "hash" not in word.lower()))
    creator = re.search(r"<dc:creator>.*?<dc:title[^>]*>(.*?)</dc:title>", work[0], re.S)
    return _Entry(path, title, useful[:300], keywords, _clean(creator[1]) if creator else "", text)


def _title(title: str, description: str, stem: str) -> str | None:
    """A caption: the title, the file name where the title is a series', the description where it says more; or None."""
    if _SERIES.match(title):
        title = _FROM_STEM.sub("", stem)
    if _EMPTY_WORDS.search(title) or _FOREIGN_OR_EMPTY.match(title):
        return None
    title = _NOISE.sub("", re.sub(r"(?<=[a-z])[_-]?\d+$|[_\s]+", " ", title))
    title = re.sub(r"\s+", " ", re.sub(r"(?<=[a-z])-(?=[a-z])", " ", re.sub(r" \d+ ?$", "", title))).strip(" .-")
    words = _NOISE.sub("", description).split()
    if len(title.split()) == 1 and 2 <= len(words) <= 12:
        title = " ".join(words).rstrip(".!")
    letters = sum(letter.isalpha() for letter in title)
    return title if letters >= 3 and letters > len(title) / 2 and len(title) <= 120 else None


def _field(work: str, name: str) -> str:
    found = re.search(rf"<dc:{name}[^>]*>(.*?)</dc:{name}>", work, re.S)
    return _clean(found[1]) if found else ""


def _clean(text: str) -> str:
    plain = html.unescape(html.unescape(re.sub(r"<[^>]*>", " ", text)))
    with contextlib.suppress(UnicodeError):  # UTF-8 that was once read as Latin-1
        plain = plain.encode("latin-1").decode("utf-8")
    return re.sub(r"\s+", " ", re.sub(r"[\ufffd\x00-\x1f\x7f-\x9f]", " ", plain)).strip()


def _is_blank(pixels: np.ndarray) -> bool:
    """Almost nothing drawn: less than 1.5% of the pixels differ from white."""
    return float((pixels.min(axis=2) < 230).mean()) < 0.015 or float(pixels.std()) < 4
