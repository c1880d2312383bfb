"""The doctor, before machines with one fault each."""

import argparse
import importlib.metadata as metadata
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from mcliplib import _torchvision_compat, doctor
from mcliplib import doctor as command
from mcliplib.errors import UserError

GIB = 2**30


def test_this_machine_has_the_required_parts() -> None:
    findings = {finding.name: finding for finding in doctor.examine()}
    for name in ("python", "torch pair", "packages"):
        assert findings[name].state == "OK", findings[name]


def test_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    version = namedtuple("Version", "major minor micro releaselevel serial")(3, 10, 9, "final", 0)
    monkeypatch.setattr(sys, "version_info", version)
    finding = doctor.check_python()
    assert finding.state == "FAIL"
    assert "python3.11" in finding.cure


def test_torchvision_that_nothing_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise UserError("torchvision does not import")

    monkeypatch.setattr(_torchvision_compat, "ensure_torchvision", fail)
    finding = doctor.check_torchvision()
    assert finding.state == "FAIL"
    assert "requirements.lock" in finding.cure


def test_torchvision_with_and_without_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torchvision_compat, "ensure_torchvision", lambda: True)
    assert "declares" in doctor.check_torchvision().detail
    monkeypatch.setattr(_torchvision_compat, "ensure_torchvision", lambda: False)
    assert "declares" not in doctor.check_torchvision().detail


def test_absent_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return {"numpy": "1.26.4"}.get(name, real(name))

    real = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    faults = {finding.name: finding for finding in doctor.check_packages() if finding.state == "FAIL"}
    assert set(faults) == {"timm", "numpy"}
    assert "not installed" in faults["timm"].detail
    assert "1.26.4" in faults["numpy"].detail
    assert all(fault.cure for fault in faults.values())


def test_little_memory_and_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "available total")(GIB, 2 * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Disk", "total used free")(9 * GIB, 8 * GIB, GIB))
    for finding in (doctor.check_memory(), doctor.check_disk()):
        assert finding.state == "WARN"
        assert "1.0 GiB" in finding.detail
        assert finding.cure


def test_absent_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor.check_data().state == "OK", doctor.check_data()
    monkeypatch.setenv("MCLIPLIB_DATA", str(tmp_path / "nowhere"))
    assert doctor.check_data().state == "FAIL"
    monkeypatch.setenv("MCLIPLIB_DATA", str(tmp_path))
    assert "no data set" in doctor.check_data().detail
    (tmp_path / "set").mkdir()
    (tmp_path / "set/card.json").write_text('{"name": "set", "role": "train", "shards": [{"file": "lost.tar"}]}')
    finding = doctor.check_data()
    assert finding.state == "FAIL"
    assert "lost.tar is missing" in finding.detail
    assert finding.cure


def test_the_format_that_training_computes_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr("mcliplib.precision.computed", lambda wanted, device, found=dtype: found)
        assert doctor.check_accelerator().detail.endswith(f"training computes in {dtype}")


def test_optional_parts_only_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    findings = list(doctor.check_optional())
    assert {finding.state for finding in findings} == {"WARN"}
    assert all(finding.cure and "only needed for" in finding.detail for finding in findings)


@pytest.mark.parametrize(("state", "status"), [("OK", 0), ("WARN", 0), ("FAIL", 1)])
def test_exit_status_and_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: doctor.State, status: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("part", state, "detail", "the cure")])
    assert command.run(argparse.Namespace(json=False)) == status
    assert capsys.readouterr().out.splitlines() == [f"{state:<4} part          detail", " " * 19 + "cure: the cure"]
    assert command.run(argparse.Namespace(json=True)) == status
    assert json.loads(capsys.readouterr().out)[0]["state"] == state


def test_the_command_survives_a_broken_torchvision(tmp_path: Path) -> None:
    """What the doctor is for: the rest of the package does not import, and it still says why."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text('raise ImportError("libcudart.so.12: cannot open")')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-m", "mcliplib", "doctor", "--json"]
    run = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=600)
    assert run.returncode == 1, run.stderr
    pair = next(finding for finding in json.loads(run.stdout) if finding["name"] == "torch pair")
    assert "libcudart" in pair["detail"]


def test_what_ray_left_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "raylet"
    program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    process = subprocess.Popen([program, "600"])
    try:
        (finding,) = doctor.check_ray()
    finally:
        process.kill()
        process.wait()
    assert finding.state == "WARN"
    assert "processes of Ray are running" in finding.detail
    assert "ray stop" in finding.cure
