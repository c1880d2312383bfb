"""One environment, described three times: the ranges, the lock, and conda's file must agree with what is installed."""

import importlib.metadata as metadata
import re
import stat
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
LOCK = {canonicalize_name(name): version for name, version in (line.split("==") for line in LOCK_LINES)}
RUNTIMES_LINES = [line for line in (ROOT / "requirements-runtimes.lock").read_text().splitlines() if line[0] != "#"]
RUNTIMES = {canonicalize_name(name): version for name, version in (line.split("==") for line in RUNTIMES_LINES)}
RANGES = [
    pytest.param(Requirement(line), id=f"{extra or 'needed'}-{Requirement(line).name}")
    for extra, lines in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
    for line in lines
]


@pytest.mark.parametrize("need", RANGES)
def test_every_direct_dependency_is_locked_within_its_range(need: Requirement) -> None:
    name = canonicalize_name(need.name)
    locked = (LOCK | RUNTIMES)[name]
    assert need.specifier.contains(locked, prereleases=True), f"{need} against {locked}"


def test_the_lock_pins_everything_exactly_and_nothing_else() -> None:
    exact = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*")
    assert [line for line in LOCK_LINES if not exact.fullmatch(line)] == []
    assert len(LOCK) == len(LOCK_LINES), "a distribution is named twice"
    assert sorted(LOCK_LINES, key=str.upper) == LOCK_LINES
    assert not [name for name in LOCK if name.startswith("nvidia")]


@pytest.mark.parametrize("name", sorted(LOCK))
def test_the_lock_is_what_is_installed(name: str) -> None:
    assert metadata.version(name).partition("+")[0] == LOCK[name]


def test_the_lock_is_closed() -> None:
    """What a locked distribution needs is locked too; otherwise pip would choose a version by itself."""
    missing = set()
    for name in LOCK:
        for need in map(Requirement, metadata.requires(name) or []):
            wanted = need.marker is None or need.marker.evaluate({"extra": ""})
            if wanted and canonicalize_name(need.name) not in LOCK:
                missing.add(f"{name} needs {need.name}")
    assert missing == {"clip-benchmark needs pycocoevalcap"}, "104 MB for captions' scores, which we do not ask for"
    assert "--no-deps -r requirements.lock" in (ROOT / "Makefile").read_text()


def test_the_runtimes_add_only_what_the_lock_lacks() -> None:
    assert sorted(RUNTIMES_LINES, key=str.upper) == RUNTIMES_LINES
    assert not set(RUNTIMES) & set(LOCK)
    assert "test: lint $(RUNTIMES)" in (ROOT / "Makefile").read_text()


def test_the_lock_installs_on_the_oldest_python() -> None:
    """Not only on this one: a distribution may ask for a later patch release than the oldest 3.11 in use."""
    asking = {
        item.metadata["Name"]: item.metadata["Requires-Python"]
        for item in metadata.distributions()
        if canonicalize_name(item.metadata["Name"]) in LOCK and "Requires-Python" in item.metadata
    }
    assert len(asking) > 100
    assert {name: needs for name, needs in asking.items() if not SpecifierSet(needs).contains("3.11.0")} == {}


def test_conda_users_get_the_same_packages() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip_lines = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip_lines == ["-r requirements.lock"]
    assert f"python{PROJECT['requires-python']}" in dependencies


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    package = re.search(r'__version__ = "([^"]+)"', (ROOT / "mcliplib/__init__.py").read_text())
    assert package
    assert PROJECT["dynamic"] == ["version"]  # read from the package
    assert citation["version"] == package[1] == metadata.version("mcliplib")


def test_citation_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["references"][0]["title"].startswith("MobileCLIP")


def test_licences_are_complete() -> None:
    assert "Permission is hereby granted" in (ROOT / "LICENSE").read_text()
    content = (ROOT / "LICENSE-CONTENT").read_text()
    assert "CC-BY-4.0" in content
    assert "Section 8 -- Interpretation" in content


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & stat.S_IXUSR
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash")
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("make test")
