"""The built book in a real browser: no page asks another host for anything, formulas show, a phone is wide enough."""

import functools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from book_pages import toc_pages

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)"),
]
PAGES = toc_pages()
HOST = "127.0.0.1"
PHONE = 390
TALLEST = 40_000  # pixels
FLAGS = [
    "--headless",
    "--no-sandbox",  # root has no user namespace to sandbox in
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
    "--virtual-time-budget=8000",
]
CONTROL = '<script src="http://elsewhere.invalid/x.js"></script>'
FRAME = """<iframe id="page" src="{src}" style="width:{width}px;height:800px;border:0"></iframe>
<script>setInterval(() => {{
  const page = document.getElementById("page").contentDocument;
  if (page.readyState !== "complete") return;
  document.body.dataset.width = page.documentElement.scrollWidth;
  document.body.dataset.height = page.documentElement.scrollHeight;
}}, 100);</script>"""


class Handler(SimpleHTTPRequestHandler):
    """The site, and two pages of the tests: one that asks another host, one that shows a page at a phone's width."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/control":
            self._answer(CONTROL)
        elif address.path == "/phone":
            self._answer(FRAME.format(src=parse_qs(address.query)["page"][0], width=PHONE))
        elif address.path in ("/wide", "/tall"):  # planted faults
            style = {"/wide": "width:500px;height:9px", "/tall": "width:9px;height:50000px"}[address.path]
            self._answer(f'<div style="{style}"></div>')
        else:
            super().do_GET()

    def _answer(self, body: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f"<!doctype html><body>{body}</body>".encode())

    def log_message(self, *args: object) -> None:
        pass


@dataclass(frozen=True)
class Visit:
    dom: str
    requests: list[str]  # what the page asked for, not what the browser did for itself


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    made = ThreadingHTTPServer((HOST, 0), functools.partial(Handler, directory=str(site)))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://{HOST}:{made.server_port}"
    made.shutdown()


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chromium")


def visit(address: str, profiles: Path) -> Visit:
    assert CHROMIUM
    log = profiles / "net.json"
    log.unlink(missing_ok=True)
    argv = [CHROMIUM, *FLAGS, f"--user-data-dir={profiles / 'profile'}", f"--log-net-log={log}", "--dump-dom", address]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=600, env={**os.environ, "HOME": str(profiles)})
    assert run.returncode == 0, run.stderr[-2000:]
    return Visit(run.stdout, page_requests(log))


def page_requests(log: Path) -> list[str]:
    """Addresses asked for on behalf of a page of our server: those carry its site as their isolation key."""
    content = json.loads(log.read_text())
    start = content["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    events = [event["params"] for event in content["events"] if event["type"] == start and event.get("params")]
    ours = [params for params in events if params.get("network_isolation_key", "").startswith(f"http://{HOST}")]
    return [params["url"] for params in ours if "url" in params]


def test_a_request_to_another_host_would_be_seen(server: str, profiles: Path) -> None:
    assert "http://elsewhere.invalid/x.js" in visit(f"{server}/control", profiles).requests


@pytest.mark.parametrize("page", [*PAGES, "genindex", "search"])
def test_page_asks_no_other_host_and_shows_its_formulas(server: str, profiles: Path, page: str, site: Path) -> None:
    found = visit(f"{server}/{page}.html", profiles)
    assert f"{server}/{page}.html" in found.requests
    assert [address for address in found.requests if urlsplit(address).hostname != HOST] == []
    formulas = len(re.findall(r'class="math ', (site / f"{page}.html").read_text()))
    assert found.dom.count("<mjx-container") >= formulas
    assert "<mjx-merror" not in found.dom


def size_on_a_phone(server: str, profiles: Path, page: str) -> tuple[int, int]:
    """Width and height in pixels of what a phone would have to show."""
    found = visit(f"{server}/phone?page={page}", profiles)
    size = [re.search(rf'data-{side}="(\d+)"', found.dom) for side in ("width", "height")]
    assert all(size), "the page did not load"
    return tuple(int(side[1]) for side in size if side)  # type: ignore[return-value]


@pytest.mark.parametrize("page", PAGES)
def test_page_fits_a_phone(server: str, profiles: Path, page: str) -> None:
    width, height = size_on_a_phone(server, profiles, f"/{page}.html")
    assert width <= PHONE
    assert height <= TALLEST


def test_a_page_that_is_too_wide_or_too_tall_would_be_seen(server: str, profiles: Path) -> None:
    assert size_on_a_phone(server, profiles, "/wide")[0] > PHONE
    assert size_on_a_phone(server, profiles, "/tall")[1] > TALLEST
