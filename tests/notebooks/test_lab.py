"""A chapter in a real JupyterLab: roles are rendered, answers and solutions are folded until the reader opens them."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page

from tests.browser import HANGING, HOST, a_browser, needs_browser

pytestmark = needs_browser
ROOT = Path(__file__).parents[2]
CHAPTER = "clip_in_one_sitting"
RAW_ROLE = re.compile(r"\{[a-z]+\}\s*`?[\w-]+")


@contextmanager
def jupyterlab(folder: Path, *, myst: bool) -> Iterator[str]:
    """A JupyterLab with the chapter, and settings of its own; its address."""
    shutil.copy(ROOT / f"book/{CHAPTER}.ipynb", folder)
    own = {f"JUPYTERLAB_{name}_DIR": str(folder / name) for name in ("SETTINGS", "WORKSPACES")}
    env = {**os.environ, **own, "JUPYTER_CONFIG_DIR": str(folder / "config"), "HOME": str(folder)}
    notebooks = folder / "SETTINGS/@jupyterlab/notebook-extension"
    notebooks.mkdir(parents=True)
    (notebooks / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')  # render what is out of sight
    if not myst:
        (folder / "config/labconfig").mkdir(parents=True)
        (folder / "config/labconfig/page_config.json").write_text('{"disabledExtensions": {"jupyterlab-myst": true}}')
    options = ["--no-browser", "--allow-root", f"--ip={HOST}", "--port=0", "--IdentityProvider.token="]
    options += [f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None", "--ServerApp.disable_check_xsrf=True"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log)
    try:
        yield address_in(folder / "log", server)
    finally:
        server.terminate()
        server.wait(timeout=60)


def address_in(log: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + HANGING
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        if found := re.search(rf"http://{HOST}:\d+/lab", log.read_text()):
            urllib.request.urlopen(found[0], timeout=HANGING)
            return found[0]
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@contextmanager
def chapter(folder: Path, *, myst: bool = True) -> Iterator[Page]:
    """The chapter, open and rendered, all cells of it."""
    with jupyterlab(folder, myst=myst) as address, a_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(HANGING * 1000)
        page.goto(f"{address}/tree/{CHAPTER}.ipynb")
        page.get_by_text("Further reading").first.wait_for()  # in the last cell
        yield page


def prose(page: Page) -> str:
    return "\n".join(page.locator(".jp-MarkdownCell").all_inner_texts())


def shown(page: Page, text: str) -> bool:
    """Whether a text is visible anywhere; a rendered cell also holds it in its hidden editor."""
    return any(found.is_visible() for found in page.get_by_text(text).all())


def test_roles_are_rendered_and_answers_are_folded(tmp_path: Path) -> None:
    with chapter(tmp_path) as page:
        deadline = time.monotonic() + HANGING
        while RAW_ROLE.findall(prose(page)) and time.monotonic() < deadline:
            page.wait_for_timeout(500)  # cells are rendered one after the other
        assert RAW_ROLE.findall(prose(page)) == []
        answers = page.locator("details")
        assert answers.count() >= 3
        assert [answers.nth(i).get_attribute("open") for i in range(answers.count())] == [None] * answers.count()
        assert not shown(page, "the model is guessing")
        assert shown(page, "optimizer.zero_grad()")  # code in general is open
        assert not shown(page, "in zip(taus, by_scale")  # a solution's is not


def test_without_the_extension_all_of_it_would_be_seen(tmp_path: Path) -> None:
    with chapter(tmp_path, myst=False) as page:
        assert RAW_ROLE.findall(prose(page))
        assert page.locator("details").count() == 0
        assert shown(page, "the model is guessing")
