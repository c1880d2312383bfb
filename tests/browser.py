"""A real browser for the tests: Debian's chromium, driven by Playwright."""

import functools
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium")
HOST = "127.0.0.1"
HANGING = 5 * 60  # seconds: no test of speed
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)"),
]


@contextmanager
def a_browser() -> Iterator[Browser]:
    """A browser that can reach this machine only."""
    flags = [
        "--no-sandbox",  # root has no user namespace to sandbox in
        f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of a folder's files."""
    server = ThreadingHTTPServer((HOST, 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{HOST}:{server.server_port}"
    server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass
