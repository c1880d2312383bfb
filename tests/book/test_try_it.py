"""The page "Try it": what it answers in a browser is what the package answers in Python."""

import base64
import gzip
import hashlib
import io
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from book_pages import BOOK, ROOT
from demo import load_tool
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, Route

import mcliplib
from mcliplib.data import load_samples
from mcliplib.evaluate import image_features, text_features
from mcliplib.model import MobileCLIP
from mcliplib.preprocess import preprocess_image
from tests.browser import HANGING, HOST, a_browser, needs_browser, served

tool = load_tool()
VENDOR = BOOK / "_static/vendor/onnxruntime"
PAGE = """<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Try it</title>
<meta name="viewport" content="width=device-width"></head>
<body><main class="bd-article"><h1>Try it</h1>{}</main></body></html>"""
LABELS = ("a tomato", "an owl", "a red car", "a house", "a bird", "a smiling face", "a tree")
QUERIES = ("a bird", "a red car", "something to eat", "a house", "a tree in snow", "sport", "zzz ☂ 漢字")
PHONE = 390
RAW = re.compile(r"```\{raw\} html\n(.*?)```", re.DOTALL)


def in_browser(test: Callable) -> Callable:
    for mark in needs_browser:
        test = mark(test)
    return test


class Site(NamedTuple):
    address: str
    files: Path


class Opened(NamedTuple):
    page: Page
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page's own markup without the theme, below a folder as on a host of many sites."""
    root = tmp_path_factory.mktemp("site")
    static = root / "some/base/_static"
    (static / "vendor").mkdir(parents=True)
    for name in ("try", "vendor/onnxruntime"):
        (static / name).mkdir()
        for path in (BOOK / "_static" / name).iterdir():
            (static / name / path.name).write_bytes(path.read_bytes())
    tool.make(static / "try")
    blocks = "".join(RAW.findall((BOOK / "try_it.md").read_text(encoding="utf-8")))
    (root / "some/base/book").mkdir()
    (root / "some/base/book/try_it.html").write_text(PAGE.format(blocks), encoding="utf-8")
    with served(root) as address:
        yield Site(f"{address}/some/base/book/try_it.html", static / "try")


@pytest.fixture(scope="module")
def opened(browser: Browser, site: Site) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(HANGING * 1000)
    page, requests = context.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(site.address)
    wait(page)
    yield Opened(page, requests)
    context.close()


@pytest.fixture(scope="module")
def model() -> MobileCLIP:
    return mcliplib.create_model(pretrained="student")


def wait(page: Page, state: str = "ready") -> None:
    page.wait_for_selector(f".try[data-state={state}]")


def said(page: Page, place: str, words: str) -> None:
    """Wait until a place of the page says the words."""
    page.wait_for_function(
        "([id, words]) => document.getElementById(id).textContent.includes(words)", arg=[f"try-{place}", words]
    )


def status(page: Page) -> str:
    return page.locator("#try-status").inner_text()


def address_of(image: Image.Image, format: str = "PNG", **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


READ = "const read = async (address) => tryIt.readPicture(await (await fetch(address)).blob());"
PROBABILITIES = f"""async ([addresses, labels]) => {{ {READ}
  const texts = await tryIt.model.encodeTexts(labels), answers = [];
  for (const one of addresses)
    answers.push(tryIt.model.probabilities(await tryIt.model.encodePicture(await read(one)), texts));
  return answers; }}"""
SQUARE = f"""async ([address, size, interpolation, base]) => {{ {READ}
  const {{ centralSquare }} = await import(base + '/picture.js');
  return Array.from(centralSquare(await read(address), size, interpolation)); }}"""
NEAREST = """async (query) => tryIt.model.nearest((await tryIt.model.encodeTexts([query]))[0], 10)"""
TOKENS = "(texts) => texts.map(one => tryIt.model.tokenizer.encode(one))"
OTHER_TOKENS = """async ([texts, changes, base]) => {
  const { Tokenizer } = await import(base + '/tokenizer.js'), { tables, merges } = tryIt.model.tokenizer;
  const other = new Tokenizer({ ...tables, ...changes }, merges);
  return texts.map(one => other.encode(one)); }"""


# Files


def test_the_runtime_is_the_one_that_is_named() -> None:
    named = dict(line.split()[::-1] for line in (VENDOR / "README").read_text().splitlines()[-2:])
    contents = {"ort.wasm.bundle.min.js": (VENDOR / "ort.wasm.bundle.min.js").read_bytes()}
    packed = (VENDOR / "ort-wasm-simd-threaded.wasm.gz").read_bytes()
    contents["ort-wasm-simd-threaded.wasm"] = gzip.decompress(packed)
    assert named == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_the_files_are_made_from_the_shipped_student_and_small(site: Site) -> None:
    about = json.loads((site.files / "model.json").read_text())
    assert about["student"] == hashlib.sha256(tool.WEIGHTS.read_bytes()).hexdigest()
    towers = [site.files / f"{name}.onnx.gz" for name in ("image", "text")]
    assert sum(path.stat().st_size for path in towers) <= tool.MOST_BYTES
    before = (site.files / "model.json").stat().st_mtime_ns
    tool.make(site.files)
    assert (site.files / "model.json").stat().st_mtime_ns == before


def test_the_modules_name_no_other_host_and_are_small() -> None:
    for path in (BOOK / "_static/try").iterdir():
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"https?://", text) == []
        assert len(text.splitlines()) <= 300


# Pictures


def drawings(count: int) -> list[Image.Image]:
    """Pictures of any shape, with edges, ramps and noise."""
    chance = random.Random(0)
    made = []
    for number in range(count):
        width, height = chance.randint(20, 300), chance.randint(20, 300)
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.blend(Image.fromarray(noise), Image.new("RGB", (width, height), (200, 90, 40)), 0.6)
        corner = [chance.randint(0, width // 2), chance.randint(0, height // 2)]
        box = (*corner, corner[0] + width // 3, corner[1] + height // 3)
        ImageDraw.Draw(image).ellipse(box, fill=(20, 120, chance.randint(0, 255)))
        made.append(image)
    return made


def in_page(site: Site, page: Page, address: str, size: int, interpolation: str) -> np.ndarray:
    base = site.address.replace("book/try_it.html", "_static/try")
    return np.array(page.evaluate(SQUARE, [address, size, interpolation, base]), np.int64).reshape(size, size, 3)


def in_python(image: Image.Image, size: int, interpolation: str) -> np.ndarray:
    config = mcliplib.model.PixelConfig(interpolation=interpolation)
    return np.rint(preprocess_image(image, size, config).numpy().transpose(1, 2, 0) * 255).astype(np.int64)


@in_browser
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [48, 64, 256])
def test_pixels_are_pillows(site: Site, opened: Opened, size: int, interpolation: str) -> None:
    for image in [*drawings(8), drawings(1)[0].resize((1500, 40)), drawings(1)[0].resize((33, 1200))]:
        found = in_page(site, opened.page, address_of(image), size, interpolation)
        assert np.array_equal(found, in_python(image, size, interpolation)), image.size


@in_browser
def test_transparency_is_white_and_a_picture_is_turned_upright(site: Site, opened: Opened) -> None:
    image = drawings(1)[0]
    layer = image.copy()
    layer.putalpha(Image.linear_gradient("L").resize(image.size))
    found = in_page(site, opened.page, address_of(layer), 48, "bilinear")
    assert np.abs(found - in_python(layer, 48, "bilinear")).max() <= 1
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        address = address_of(image.resize((200, 150)), "JPEG", quality=95, exif=exif)
        turned = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
        found = in_page(site, opened.page, address, 48, "bilinear")
        assert np.abs(found - in_python(turned, 48, "bilinear")).max() <= 2, turn


# Answers


@in_browser
def test_probabilities_are_pythons(opened: Opened, model: MobileCLIP) -> None:
    pictures = [sample.image for sample in load_samples("emoji-fluent-unseen")[::11]]
    pictures += [sample.image for sample in load_samples("gcompris-animals")[:4]]
    assert len(pictures) >= 20
    found = opened.page.evaluate(PROBABILITIES, [[address_of(one) for one in pictures], LABELS])
    cosines = image_features(model, pictures) @ text_features(model, LABELS).T
    expected = (model.scale.detach() * cosines).softmax(dim=1)
    assert (torch.tensor(found) - expected).abs().max() < 1e-3


@in_browser
@pytest.mark.parametrize("query", QUERIES)
def test_the_gallerys_first_ten_are_pythons(opened: Opened, model: MobileCLIP, query: str) -> None:
    samples = tool.gallery_samples()
    cosines = (image_features(model, [one.image for one in samples]) @ text_features(model, [query]).T)[:, 0]
    found = opened.page.evaluate(NEAREST, query)
    places = [one["index"] for one in found]
    assert len(set(places)) == 10
    assert torch.tensor([one["cosine"] for one in found]).sub(cosines[places]).abs().max() < 1e-3
    ordered = cosines.sort(descending=True)
    if (ordered.values[:10] - ordered.values[1:11]).min() > 2e-3:  # else float16 may exchange two of them
        assert places == ordered.indices[:10].tolist()
    assert cosines[places].min() > ordered.values[9] - 1e-3


# Texts

SCRIPTS = (
    "a photo of the dog's two cats that can't or won't we'll you're I've I'm he'd",
    "ein Mädchen mit Äpfeln, Straße, GROẞ; l'été à Paris, garçon, œuf, ŒUVRE, Ísland, ŻÓŁĆ, İstanbul ISPARTA ı",
    "красная машина Ёлка; Ελληνικός ΌΔΟΣ ΣΊΣΥΦΟΣ ς; Հայերեն; ქართული ᲥᲐ",
    "漢字 かな カナ ｶﾞﾊﾟ ＦＵＬＬ　ｗｉｄｔｈ 한국어 ᄒ\u1161\u11ab ﾡ",
    "العربية עברית हिन्दी தமிழ் ไทย ၁၂၃ አማርኛ ខ្មែរ",
    "☂️ 👩‍🚀 🏳️‍🌈 🇫🇷 1️⃣ 😀😃 ❤️‍🔥 ✓ → ½ ² Ⅳ ① ٣",
    "e\u0301 a\u030a n\u0303 \u1100\u1161 \u212b \u0344 \u0958 ﬁ ﬂ ﬃ ﬆ ﬅ ĳ ǆ ŉ ſ 'ſ 'S 'LL K",
)
ENTITIES = (
    "&amp;", "&lt;", "&gt;b", "&amp;amp;", "&amp;lt;", "&copy", "&notit;", "&eacute;", "&EACUTE;", "&NTILDE;", "&#39;",
    "&#x27;", "&#128;", "&#x1F600;", "&#0;", "&#xD800;", "&#1114112;", "&nbsp;", "&hellip;", "&#11;", "&ngE;", "&",
    "&&", "&NotEqualTilde;", "&fjlig;", "&unknown;", "&;", "&#;", "&#x;", "&amp;#39;",
)  # fmt: skip
MARKS = (
    "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1f", "\x00", "\x1b[31m", "\x7f", "\u2028", "\u2029", "\u200b",
    "\u200d", "\u3000", "\xa0", "\ufeff", "\u00ad", "  ", "<", ">", "<start_of_text>", "<end_of_text>", "“", "’", "‛",
    "„", "...", "!!", "'", '"', "_", "-", "12,345.67", "a" * 60, "\ud83d", "<br>", "#", "\\u00e9", "\ufffd", "\ufffc",
)  # fmt: skip


def texts(count: int) -> list[str]:
    """Texts of many languages, with entities, white space, control characters and single characters in between."""
    chance = random.Random(1)
    words = [word for text in SCRIPTS for word in text.split(" ")]
    captions = [one.caption for name in ("emoji-noto", "openclipart") for one in load_samples(name)]
    words += [word for caption in captions for word in caption.split()]
    assigned = [code for code in range(0x20, 0x2FA20) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    made = []
    for _ in range(count):
        parts = []
        for _ in range(chance.choice((1, 2, 3, 5, 8, 30))):
            word = chance.choice(words)
            kinds = ((chr(chance.choice(assigned)),), ENTITIES, MARKS, *[(word.upper(), word.title(), word)] * 7)
            parts += [chance.choice(chance.choice(kinds)), chance.choice((" ", " ", " ", "", "  ", ", "))]
        made.append("".join(parts))
    return made


def repaired(text: str) -> bool:
    """Whether Python takes the text for one in a wrong encoding, which the page does not try to mend."""
    import ftfy

    return ftfy.fix_text(text) != ftfy.fix_text(text, fix_encoding=False)


@pytest.fixture(scope="module")
def many_texts() -> list[str]:
    asked = [*texts(10_400), "", " ", "\n", "a" * 3000, *SCRIPTS]
    kept = [text for text in asked if not repaired(text)]
    assert len(kept) >= 10_000
    assert len(kept) > 0.97 * len(asked)
    return kept


@in_browser
def test_tokens_are_pythons(opened: Opened, model: MobileCLIP, many_texts: list[str]) -> None:
    expected = mcliplib.get_tokenizer(model)(many_texts).tolist()
    found = opened.page.evaluate(TOKENS, many_texts)
    assert [(text, a, b) for text, a, b in zip(many_texts, expected, found, strict=True) if a != b][:5] == []


@in_browser
@pytest.mark.parametrize("length", [77, 5])
@pytest.mark.parametrize("restricted", [False, True])
def test_tokens_of_other_vocabularies_are_pythons(
    site: Site, opened: Opened, many_texts: list[str], length: int, restricted: bool
) -> None:
    from mcliplib.tokenizer import Tokenizer, restrict_vocab

    vocab = restrict_vocab(["a red bird", "two dogs and a house"]) if restricted else None
    base = site.address.replace("book/try_it.html", "_static/try")
    some = many_texts[::5]
    changes = {"context_length": length, "vocab": vocab and list(vocab)}
    expected = Tokenizer(length, vocab)(some).tolist()
    found = opened.page.evaluate(OTHER_TOKENS, [some, changes, base])
    assert [(text, a, b) for text, a, b in zip(some, expected, found, strict=True) if a != b][:5] == []


# The page


@in_browser
def test_no_other_host_is_asked(opened: Opened) -> None:
    hosts = {urlsplit(one).hostname for one in opened.requests if urlsplit(one).scheme not in ("data", "blob")}
    assert hosts == {HOST}
    assert any(one.endswith(".wasm.gz") for one in opened.requests)


@in_browser
def test_a_reader_types_drops_and_searches(opened: Opened, model: MobileCLIP, tmp_path: Path) -> None:
    page = opened.page
    assert "leaves it" in status(page)
    tomato = next(one for one in load_samples("emoji-fluent-unseen") if one.caption == "tomato")
    tomato.image.save(tmp_path / "x.png")
    page.fill("#try-labels", "a tomato\na car, a tree;  a tomato ,")
    page.set_input_files("#try-file", tmp_path / "x.png")
    page.wait_for_function("document.querySelectorAll('#try-bars li').length === 3")
    page.wait_for_function("document.querySelector('#try-preview').ariaLabel === 'Looked at: your picture'")
    said(page, "time", "The picture took")
    cosines = image_features(model, [tomato.image]) @ text_features(model, ["a tomato", "a car", "a tree"]).T
    expected = (model.scale.detach() * cosines).softmax(dim=1)[0].sort(descending=True).values
    shares = page.eval_on_selector_all("#try-bars li", "rows => rows.map(row => Number(row.dataset.share))")
    assert (torch.tensor(shares) - expected).abs().max() < 1e-3
    said(page, "answer", "percent")
    page.fill("#try-labels", "a tomato")
    said(page, "time", "always gets 100%")

    page.fill("#try-query", "a train")
    said(page, "search-time", "Nearest to “a train”")
    assert page.locator("#try-results li").count() == 12
    page.click("#try-similar")
    said(page, "search-time", "the picture above")
    page.locator("#try-results button").first.press("Enter")  # a picture as the query: itself comes first
    said(page, "search-time", "the picture “")
    first = page.locator("#try-results li").first.inner_text()
    assert first.endswith("1.00")
    page.set_input_files("#try-query-file", tmp_path / "x.png")
    said(page, "search-time", "your picture")


@in_browser
def test_faults_are_told_in_words(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nothing")
    page.set_input_files("#try-file", tmp_path / "broken.png")
    said(page, "error", "no picture that your browser can read")
    page.click("#try-camera")
    page.wait_for_function("/camera was (not allowed|found)/.test(document.querySelector('#try-error').innerText)")
    page.locator("#try-samples button").nth(1).click()
    page.wait_for_function("document.querySelector('#try-error').innerText === ''")


CAMERA = """navigator.mediaDevices.getUserMedia = async () => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 80, height: 60 });
  const paint = canvas.getContext('2d');
  setInterval(() => { paint.fillStyle = 'rgb(255, 0, 0)'; paint.fillRect(0, 0, 80, 60); }, 20);
  globalThis.stream = canvas.captureStream();
  return stream; }"""


def wait_for_camera(page: Page) -> None:
    """Wait until the button takes a picture instead of starting the camera."""
    page.wait_for_function("document.querySelector('#try-camera').innerText === 'Take the picture'")


def camera_is_off(page: Page) -> bool:
    return bool(page.evaluate("stream.getTracks().every(track => track.readyState === 'ended')"))


@in_browser
def test_the_camera_takes_a_picture_and_is_switched_off(opened: Opened) -> None:
    page = opened.page
    page.evaluate(CAMERA)
    page.click("#try-camera")
    page.wait_for_function("document.querySelector('#try-video').videoWidth === 80")
    wait_for_camera(page)
    page.click("#try-camera")
    page.wait_for_function("document.querySelector('#try-preview').ariaLabel.includes('camera')")
    assert camera_is_off(page)
    assert page.locator("#try-video").is_hidden()
    red = page.evaluate("[...document.querySelector('#try-preview').getContext('2d').getImageData(9, 9, 1, 1).data]")
    assert red[0] > 200
    assert red[1] < 60


SLOW_CAMERA = f"""() => {{ {CAMERA};
  const open = navigator.mediaDevices.getUserMedia;
  globalThis.asked = 0;
  navigator.mediaDevices.getUserMedia = async () => {{
    asked++;
    await new Promise((resolve) => {{ globalThis.allow = resolve; }});
    return open(); }}; }}"""


@in_browser
def test_the_camera_is_asked_for_once_while_the_browser_asks_the_reader(opened: Opened) -> None:
    page = opened.page
    page.evaluate(SLOW_CAMERA)
    page.focus("#try-camera")
    page.evaluate("for (let i = 0; i < 2; i++) document.querySelector('#try-camera').click()")
    assert page.evaluate("asked") == 1
    assert page.locator("#try-camera").is_disabled()
    page.evaluate("allow()")
    wait_for_camera(page)
    assert page.evaluate("document.activeElement.id") == "try-camera"
    page.click("#try-camera-off")
    assert camera_is_off(page)
    assert page.locator("#try-camera").is_enabled()


@in_browser
def test_a_camera_that_cannot_be_shown_is_switched_off(opened: Opened) -> None:
    page = opened.page
    page.evaluate(CAMERA)
    page.evaluate(
        "() => { document.querySelector('#try-video').play = async () => { throw new Error('no picture'); }; }"
    )
    page.click("#try-camera")
    said(page, "error", "The camera's picture cannot be shown")
    assert camera_is_off(page)
    assert page.locator("#try-camera-off").is_hidden()
    page.evaluate("delete document.querySelector('#try-video').play")
    page.click("#try-camera")
    wait_for_camera(page)
    page.click("#try-camera-off")


@in_browser
@pytest.mark.parametrize(
    ("script", "missing", "told"),
    [
        ("delete globalThis.WebAssembly", "", "forbids WebAssembly"),
        ("delete globalThis.DecompressionStream", "", "too old"),
        ("", "image.onnx.gz", "image.onnx.gz"),
    ],
)
def test_a_page_that_cannot_start_says_why(browser: Browser, site: Site, script: str, missing: str, told: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(HANGING * 1000)
    page.add_init_script(script)
    if missing:
        page.route(f"**/{missing}*", lambda route: gone(route))
    page.goto(site.address)
    wait(page, "failed")
    assert told in status(page)
    page.close()


def gone(route: Route) -> None:
    route.fulfill(status=404)


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_the_page_fits_and_axe_finds_nothing_serious(browser: Browser, site: Site, width: int, theme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
    page = context.new_page()
    page.set_default_timeout(HANGING * 1000)
    page.goto(site.address)
    before = page.evaluate("document.documentElement.scrollHeight")
    wait(page)
    page.wait_for_function("document.querySelectorAll('#try-results li').length === 12")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") < 1.25 * before
    violations = Axe().run(page).response["violations"]
    assert [one["id"] for one in violations if one["impact"] in ("serious", "critical")] == []
    context.close()


def test_the_book_leads_to_the_page() -> None:
    assert "book/try_it" in (ROOT / "_toc.yml").read_text()
    assert "{doc}`try_it`" in (BOOK / "intro.md").read_text(encoding="utf-8")
