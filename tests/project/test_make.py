"""What `make` says and does on a machine that lacks something."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *argv], cwd=folder, capture_output=True, text=True, timeout=600)


def fake_python(folder: Path, body: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


def test_make_alone_lists_the_targets(clone: Path) -> None:
    run = make(clone)
    assert run.returncode == 0
    for target in ("env", "book", "test", "lint", "serve", "clean"):
        assert f"make {target}" in run.stdout
    assert not (clone / ".venv").exists()


def test_an_old_python_is_refused_by_name(clone: Path) -> None:
    run = make(clone, "env", fake_python(clone, 'case "$2" in *version_info*) exit 1;; esac'))
    assert run.returncode != 0
    assert "must exist and be Python 3.11 or newer" in run.stderr
    assert not (clone / ".venv").exists()


def test_a_missing_venv_module_names_its_package(clone: Path) -> None:
    run = make(clone, "env", fake_python(clone, 'case "$2" in *ensurepip*) exit 1;; esac'))
    assert run.returncode != 0
    assert "apt-get install python3-venv" in run.stderr


def test_an_environment_that_is_up_to_date_is_left_alone(clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv/.made-from-lock").touch()
    run = make(clone, "env", "PYTHON=/nonexistent")
    assert run.returncode == 0, run.stderr
    os.utime(clone / "requirements.lock", (2e9, 2e9))
    assert make(clone, "env", "PYTHON=/nonexistent").returncode != 0


def test_a_failed_installation_is_not_taken_for_done(clone: Path) -> None:
    (clone / "requirements.lock").write_text("nonsense ===\n")
    run = make(
        clone,
        "env",
        fake_python(clone, 'case "$2" in venv) mkdir -p .venv/bin; ln -s /bin/false .venv/bin/python;; esac'),
    )
    assert run.returncode != 0
    assert not (clone / ".venv/.made-from-lock").exists()
