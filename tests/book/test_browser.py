"""The built book in a real browser: no request to another host, formulas, a phone, accessibility in both themes."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from book_pages import toc_pages
from playwright.sync_api import Browser, Page

from tests.browser import HANGING, HOST, a_browser, needs_browser, served

pytestmark = needs_browser
PAGES = toc_pages()
PHONE = 390
TALLEST = 40_000  # pixels
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a browser without history, of the width and theme that a test is about."""
    wanted = getattr(request, "param", {})
    width, theme = wanted.get("width", 1280), wanted.get("theme", "light")
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
    context.set_default_timeout(HANGING * 1000)
    yield context.new_page()
    context.close()


phone = pytest.mark.parametrize("page", [{"width": PHONE}], indirect=True, ids=["phone"])
both_themes = pytest.mark.parametrize(
    "page", [{"theme": "light"}, {"theme": "dark"}], indirect=True, ids=lambda p: p["theme"]
)


def requests_of(page: Page) -> list[str]:
    """Return a list that collects the addresses which the page requests from now on."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url))
    return found


def elsewhere(requests: list[str]) -> list[str]:
    return [
        address for address in requests if urlsplit(address).scheme != "data" and urlsplit(address).hostname != HOST
    ]


@pytest.mark.parametrize("name", [*PAGES, "genindex", "search"])
def test_page_asks_no_other_host_and_shows_its_formulas(server: str, page: Page, name: str, site: Path) -> None:
    requests = requests_of(page)
    page.goto(f"{server}/{name}.html", wait_until="networkidle")
    assert f"{server}/{name}.html" in requests
    assert elsewhere(requests) == []
    formulas = len(re.findall(r'class="math ', (site / f"{name}.html").read_text()))
    page.wait_for_function("n => document.querySelectorAll('mjx-container').length >= n", arg=formulas)
    assert page.locator("mjx-merror").count() == 0


def test_a_request_to_another_host_would_be_seen(page: Page) -> None:
    requests = requests_of(page)
    page.set_content('<script src="http://elsewhere.invalid/x.js"></script>')
    assert elsewhere(requests) == ["http://elsewhere.invalid/x.js"]


def size(page: Page) -> tuple[int, int]:
    """Width and height in pixels of all that there is to scroll to."""
    root = "document.documentElement"
    return page.evaluate(f"{root}.scrollWidth"), page.evaluate(f"{root}.scrollHeight")


@phone
@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(server: str, page: Page, name: str) -> None:
    page.goto(f"{server}/{name}.html", wait_until="networkidle")
    width, height = size(page)
    assert width <= PHONE
    assert height <= TALLEST


@phone
def test_a_page_that_is_too_wide_or_too_tall_would_be_seen(page: Page) -> None:
    page.set_content('<div style="width:500px;height:9px"></div>')
    assert size(page)[0] > PHONE
    page.set_content('<div style="width:9px;height:50000px"></div>')
    assert size(page)[1] > TALLEST


CUT_WITHOUT_CUE = """() => [...document.querySelectorAll('.bd-article *')].filter(e => {
  const style = getComputedStyle(e);
  return /auto|scroll|hidden/.test(style.overflowX) && e.clientWidth && e.scrollWidth > e.clientWidth + 1
    && !e.matches('span.math, mjx-assistive-mml') && !style.backgroundImage.includes('gradient');
}).map(e => e.outerHTML.slice(0, 200))"""
NUMBER_ON_FORMULA = """() => [...document.querySelectorAll('.bd-article div.math:has(.eqno)')].filter(e => {
  const [number, formula] = ['.eqno', 'mjx-container'].map(one => e.querySelector(one).getBoundingClientRect());
  return number.left < formula.right - 1 && formula.left < number.right - 1
    && number.top < formula.bottom - 1 && formula.top < number.bottom - 1;
}).map(e => e.id)"""
HEADINGS = """() => ['h1', 'h2', 'h3'].map(name => document.querySelector(`.bd-article ${name}`)).filter(e => e)
  .map(e => parseFloat(getComputedStyle(e).fontSize))"""


@phone
@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_what_goes_on_beyond_an_edge(server: str, page: Page, name: str) -> None:
    page.goto(f"{server}/{name}.html", wait_until="networkidle")
    assert page.evaluate(CUT_WITHOUT_CUE) == []
    assert page.evaluate(NUMBER_ON_FORMULA) == []
    sizes = page.evaluate(HEADINGS)
    assert sizes == sorted(set(sizes), reverse=True)


@phone
def test_a_cut_text_or_formula_would_be_seen(page: Page) -> None:
    page.set_content(
        '<div class="bd-article"><pre style="overflow:auto;width:90px">a long line that goes on and on</pre>'
    )
    assert len(page.evaluate(CUT_WITHOUT_CUE)) == 1
    number = '<span class="eqno" style="position:absolute">(1)</span>'
    formula = '<mjx-container style="display:block">x = y</mjx-container>'
    page.set_content(f'<div class="bd-article"><div class="math" id="x">{number}{formula}</div></div>')
    assert page.evaluate(NUMBER_ON_FORMULA) == ["x"]


def serious(page: Page) -> list[str]:
    """List the serious and critical violations that axe-core finds: the rule, the element and the fault."""
    violations = Axe().run(page, options=AXE).response["violations"]
    return [
        f"{found['id']}: {node['html'][:200]} ({node.get('failureSummary', '')[:300]})"
        for found in violations
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


@both_themes
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible(server: str, page: Page, name: str) -> None:
    page.goto(f"{server}/{name}.html", wait_until="networkidle")
    assert serious(page) == []


@both_themes
def test_a_page_that_is_not_accessible_would_be_seen(page: Page) -> None:
    page.set_content('<html lang="en"><title>x</title><p style="color:#ccc;background:#fff">pale</p><img src="data:,">')
    assert {found.partition(":")[0] for found in serious(page)} == {"color-contrast", "image-alt"}
