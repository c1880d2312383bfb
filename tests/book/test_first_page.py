"""The first page shows what is: the student's answers, the chapters as they stand, published numbers with a source."""

import importlib.util
import json
import re

from book_pages import BOOK, PAGES, ROOT, markdown
from chapter_map import minutes_to_read, numbered_parts

from mcliplab import quotes
from mcliplib import results
from mcliplib.data import load_samples
from mcliplib.images import on_white

ROUNDING = 0.01  # of a cosine: the recorded one has three places, and processors differ


def test_the_picture_shows_what_the_student_finds() -> None:
    spec = importlib.util.spec_from_file_location("first_picture", BOOK / "_tools/first_picture.py")
    assert spec
    assert spec.loader
    search = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(search)
    gallery = [sample for name in search.GALLERY for sample in load_samples(name)]
    place = {sample.caption: index for index, sample in enumerate(gallery)}
    cosines = search.cosines_of([on_white(sample.image) for sample in gallery])
    recorded = results.load("first-search")["values"]
    assert recorded["gallery"] == len(gallery)
    assert list(recorded["answers"]) == list(search.PHRASES)
    for row, answers in zip(cosines, recorded["answers"].values(), strict=True):
        assert len(answers) == search.SHOWN
        assert all(abs(row[place[one["picture"]]] - one["cosine"]) < ROUNDING for one in answers)
        others = [i for i in range(len(gallery)) if i not in {place[one["picture"]] for one in answers}]
        assert row[others].max() < answers[-1]["cosine"] + ROUNDING


def test_the_picture_in_words_is_the_record() -> None:
    alt = re.search(r":alt: (Three rows.*)", markdown(BOOK / "intro.md"))
    assert alt
    for phrase in results.load("first-search")["values"]["answers"]:
        assert phrase.capitalize() in alt[1]


def test_every_published_number_has_a_source_and_a_reader() -> None:
    published = json.loads(quotes.PUBLISHED.read_text())
    known = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(), re.MULTILINE))
    texts = [quotes.QUOTED.sub(r"{\g<role>}`\g<reference>`", markdown(page)) for page in PAGES]
    used = {name for text in texts for name in re.findall(r"\{published\}`([^`]+)`", text)}
    assert used == set(published)
    assert {one["source"] for one in published.values()} <= known
    assert all(one["what"] and one["unit"] for one in published.values())


def test_every_chapter_says_how_long_it_takes_to_read() -> None:
    chapters = [page for part in numbered_parts(ROOT) for page in part.pages if (ROOT / f"{page}.ipynb").is_file()]
    assert len(chapters) >= 10
    assert [page for page in chapters if not minutes_to_read(ROOT / f"{page}.ipynb")] == []
