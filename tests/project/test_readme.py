"""README keeps its promises: its code runs, its links lead somewhere, its commands exist."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mcliplib.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "photo.jpg")
    code = example[1] + "\nassert similarity.shape == (1, 2)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_the_reinforce_example_runs(tmp_path: Path) -> None:
    table = re.search(r"```csv\n(.*?)```", README, re.DOTALL)
    command = re.search(r"^mcliplib (reinforce --input .*)$", README, re.MULTILINE)
    assert table
    assert command
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "captions.csv").write_text(table[1])
    for number, line in enumerate(table[1].splitlines()[1:]):
        Image.new("RGB", (300, 200), (200, 30 * number, 30)).save(photos / line.partition(",")[0])
    argv = [sys.executable, "-m", "mcliplib", *command[1].split()]
    run = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert "reinforced: 2 samples; skipped: none" in run.stdout


def test_local_links_and_pictures_exist() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_first_screen_has_a_picture_with_text_and_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:22])
    assert re.search(r"!\[[^\]]{40,}\]\(", first)
    assert "make book" in first
    assert "make test" in first


def test_its_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets


def test_contributing_names_files_and_commands_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:mcliplib|mcliplab|tests|book|data)/[\w./]*)`", text)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists() and "NAME" not in path] == []
    arguments = [path for line in re.findall(r"`python ([^`]+)`", text) for path in line.split() if "/" in path]
    assert [path for path in arguments if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets
    assert set(re.findall(r"`mcliplib ([a-z]+)", text)) <= set(COMMANDS)


def test_what_moved_is_where_the_change_log_says() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    homes = {
        name
        for row in re.findall(r"^\| `[^|]*\| (.*) \|$", text, re.MULTILINE)
        for name in re.findall(r"`((?:mcliplab|[a-z]+)(?:\.[a-z_]+)+|mcliplab\.[a-z]+)`", row)
    }
    assert len(homes) > 20
    for name in homes:
        module = name if name.startswith("mcliplab") else f"mcliplib.{name}"
        parent, _, leaf = module.rpartition(".")
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(parent), leaf), name
