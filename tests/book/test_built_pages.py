"""The built book, read as files: complete, executed, described, and with no resource from another host."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from book_pages import BOOK, NOTEBOOKS, toc_pages
from conftest import Built

PAGES = toc_pages()
EXTERNAL = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
HOSTS = re.compile(r"(unpkg\.com|jsdelivr|cdnjs|bootstrapcdn|googleapis|gstatic|mybinder|cdn\.)", re.IGNORECASE)
RESOURCES = {  # what a browser fetches by itself; links that a reader follows (a href) are fine
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
PASSIVE_LINKS = {"canonical", "index", "search", "next", "prev", "author", "copyright", "license", "alternate"}


class Page(HTMLParser):
    """Collect what the tests ask of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.h1 = self.outputs = 0
        self.described = self.in_article = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.fetched += [attributes[name] or "" for name in RESOURCES.get(tag, ()) if name in attributes]
        if tag == "link" and not PASSIVE_LINKS & set((attributes.get("rel") or "").split()):
            self.fetched.append(attributes.get("href") or "")
        self.fetched += re.findall(r"url\(['\"]?([^)'\"]+)", attributes.get("style") or "")
        if tag == "img":
            self.images.append(attributes)
        self.in_article |= tag == "article"  # before it, the theme repeats the title for print
        self.h1 += tag == "h1" and self.in_article
        self.outputs += "cell_output" in (attributes.get("class") or "").split()
        if tag == "meta" and attributes.get("property") == "og:description":
            self.described = bool(attributes.get("content"))


def read(site: Path, page: str) -> Page:
    return Page(site / f"{page}.html")


def test_the_build_found_no_fault(built: Built) -> None:
    assert not built.faults, built.faults


def test_every_page_of_the_table_of_contents_was_built_and_no_other(site: Path) -> None:
    built = {str(path.relative_to(site).with_suffix("")) for path in (site / "book").rglob("*.html")}
    assert built == set(PAGES)
    assert "book/intro.html" in (site / "index.html").read_text()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_chapter_was_executed(site: Path, notebook: Path) -> None:
    assert read(site, f"book/{notebook.stem}").outputs >= 1
    status = (site / "book/status.html").read_text()
    row = re.search(rf"<tr[^>]*>(?:(?!</tr>).)*{notebook.stem}\.html(?:(?!</tr>).)*</tr>", status, re.DOTALL)
    assert row, "not on the page of execution times"
    assert "<p>ran</p>" in row[0]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_one_title_and_a_description(site: Path, page: str) -> None:
    found = read(site, page)
    assert found.h1 == 1
    assert found.described


@pytest.mark.parametrize("page", PAGES)
def test_every_image_has_a_text(site: Path, page: str) -> None:
    for image in read(site, page).images:
        alt = (image.get("alt") or "").strip()
        assert alt, image.get("src", "")[:80]
        assert not re.search(r"\.(png|svg|jpe?g|gif)$", alt), f"{alt}: a file name says nothing"


@pytest.mark.parametrize("page", PAGES)
def test_no_markup_is_left_unread(site: Path, page: str) -> None:
    """A directive that Markdown does not take for one shows up as text, without any warning."""
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:`{3,}|:{3,})\{[^<]*", text) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_warning_is_printed(site: Path, page: str) -> None:
    text = (site / f"{page}.html").read_text(encoding="utf-8")
    assert re.findall(r"[a-z]Warning: .{,80}", text) == []


@pytest.mark.parametrize("page", PAGES)
def test_no_page_shows_a_folder_of_the_machine_that_built_it(site: Path, page: str) -> None:
    assert re.findall(r"/(?:tmp|var|home|root)/\w+", (site / f"{page}.html").read_text()) == []


def test_plots_are_vectors_that_a_phone_can_read(site: Path) -> None:
    """Text of 9 points in a figure of at most 4.9 inches has 9 pixels or more on a screen of 390."""
    figures = [one for one in (site / "_images").iterdir() if not (BOOK / "_static" / one.name).exists()]
    assert len(figures) >= 20
    assert [figure.name for figure in figures if figure.suffix != ".svg"] == []
    widths = [re.search(r'<svg[^>]*?width="([\d.]+)pt"', figure.read_text()[:3000]) for figure in figures]
    assert all(widths)
    assert max(float(width[1]) for width in widths) <= 4.9 * 72


def test_the_explorers_are_sliders_on_a_page(site: Path) -> None:
    """Their widgets need a kernel."""
    explorers = {one.stem: len(re.findall(r"explore_\w+\(", one.read_text())) for one in NOTEBOOKS}
    assert sum(explorers.values()) >= 4
    for name, count in explorers.items():
        assert (site / f"book/{name}.html").read_text().count('class="frames-slider"') >= count


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    found = {
        f"{path.relative_to(site)}: {address}"
        for path in site.rglob("*.html")
        for address in Page(path).fetched
        if EXTERNAL.match(address)
    }
    assert found == set()


def test_inline_scripts_name_no_other_host(site: Path) -> None:
    scripts = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)
    found = {
        f"{path.relative_to(site)}: {match[0]}"
        for path in site.rglob("*.html")
        for script in scripts.findall(path.read_text(encoding="utf-8"))
        if (match := HOSTS.search(script))
    }
    assert found == set()


def test_style_sheets_and_scripts_fetch_nothing_from_elsewhere(site: Path) -> None:
    imports = re.compile(r"(?:url\(\s*|@import\s+)['\"]?((?:https?:)?//[^)'\"\s]+)")
    found = {f"{path.name}: {address}" for path in site.rglob("*.css") for address in imports.findall(path.read_text())}
    # MathJax names the content networks that it can be asked to load from; the browser test shows that it is not.
    scripts = [path for path in site.rglob("*.js") if "vendor" not in path.parts and path.name != "searchindex.js"]
    loaded = {page for path in site.rglob("*.html") for page in map(_file_name, Page(path).fetched)}
    found |= {
        f"{path.name}: {match[0]}"
        for path in scripts
        if path.name in loaded and (match := HOSTS.search(path.read_text(errors="replace")))
    }
    assert found == set()


def _file_name(address: str) -> str:
    return address.partition("?")[0].rpartition("/")[2]


def dead_links(site: Path) -> list[str]:
    """Links within the site that lead to no file, or to no place in it."""
    pages = {path: Links(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            address, _, anchor = link.partition("#")
            if EXTERNAL.match(link) or re.match(r"[a-z]+:", link):
                continue
            target = (path.parent / unquote(address.partition("?")[0])).resolve() if address else path
            found = target.is_file() and (not anchor or target not in pages or unquote(anchor) in pages[target].ids)
            dead += [] if found else [f"{path.relative_to(site)}: {link}"]
    return dead


class Links(HTMLParser):
    """Collect a page's links and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {found[name] or "" for name in ("id", "name") if name in found}
        if tag in ("a", "link") and found.get("href"):
            self.links.append(found["href"] or "")


def test_no_link_is_dead(site: Path) -> None:
    assert dead_links(site) == []


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<p id="place"></p>')
    good = '<a href="there.html#place"></a><a href="#own"></a><p id="own"></p><a href="https://a.example/x"></a>'
    (tmp_path / "page.html").write_text(good + '<a href="gone.html"></a><a href="there.html#no"></a><a href="#no"></a>')
    assert dead_links(tmp_path) == ["page.html: gone.html", "page.html: there.html#no", "page.html: #no"]


def test_a_page_names_no_address_that_is_not_set(site: Path) -> None:
    for path in (site / "book").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        head = "".join(re.findall(r"<(?:meta|link) [^>]*>", text))
        assert not re.search(r"localhost|book\.invalid", head), path.name
        assert "book.invalid" not in text, path.name


def test_a_title_says_its_name_once(site: Path) -> None:
    titles = {
        page: re.search(r"<title>(.*?)</title>", (site / f"{page}.html").read_text(), re.DOTALL) for page in PAGES
    }
    for page, title in titles.items():
        assert title, page
        parts = [part.strip() for part in re.split("—|&#8212;|&mdash;", title[1])]
        assert len(set(parts)) == len(parts), title[1]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_download_button_hands_out_the_notebook(site: Path, notebook: Path) -> None:
    page = (site / f"book/{notebook.stem}.html").read_text(encoding="utf-8")
    link = re.search(r'href="([^"]*_sources[^"]*\.ipynb)"', page)
    assert link
    assert ((site / "book") / link[1]).resolve().read_bytes() == notebook.read_bytes()


def test_mathjax_comes_with_its_fonts_and_licence(site: Path) -> None:
    vendored = site / "_static/vendor/mathjax"
    assert (vendored / "tex-mml-chtml.js").stat().st_size > 1_000_000
    assert len(list((vendored / "output/chtml/fonts/woff-v2").glob("*.woff"))) >= 20
    assert "Apache License" in (BOOK / "_static/vendor/mathjax/LICENSE").read_text()
