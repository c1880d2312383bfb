"""`mcliplib doctor`: look at this machine and say what is missing, with the cure of each fault."""

import argparse
import contextlib
import importlib.metadata as metadata
import json
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mcliplib.errors import UserError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["OK", "WARN", "FAIL"]

REPOSITORY = Path(__file__).resolve().parent.parent
MINIMUM_PYTHON = (3, 11)
MEMORY_GIB = 4.0  # training the small preset beside a notebook
TESTS_GIB = 8.0  # `make test`: two processes of up to 4, one of which holds the largest preset
DISK_GIB = 2.0  # checkpoints, the built book
INSTALL_CURE = "run `make env`, or `pip install -r requirements.lock`"

# Not needed to read, run or train: a program or a distribution, what it serves, and how to get it.
_PROGRAMS = ("chromium",)
OPTIONAL = {
    "chromium": ("the book's browser tests", "apt-get install chromium"),
    "jupyter-book": ("building the book", "pip install 'mcliplib[book]'"),
    "jupyterlab": ("opening the chapters as notebooks", "pip install 'mcliplib[book]'"),
    "jupyterlab-myst": ("reading them there: roles rendered, answers folded", "pip install 'mcliplib[book]'"),
    "resvg-py": ("rebuilding data/ from its sources", "pip install 'mcliplib[build]'"),
    "onnxruntime": ("running ONNX exports", "pip install onnxruntime"),
    "openvino": ("running OpenVINO exports", "pip install openvino"),
    "usearch": ("searching 100,000 pictures and more with a graph", "pip install 'mcliplib[search]'"),
    "ray": ("reinforcing data on several machines", "pip install ray"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    state: State
    detail: str
    cure: str = ""


def register(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("doctor", help="check this machine and print the cure of each fault")
    parser.add_argument("--json", action="store_true", help="print a JSON list of findings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line for each finding; 1 if something must be cured."""
    findings = examine()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(map(line, findings)))
    return int(any(finding.state == "FAIL" for finding in findings))


def line(finding: Finding) -> str:
    """The finding as people read it."""
    cure = f"\n{'':19}cure: {finding.cure}" if finding.cure else ""
    return f"{finding.state:<4} {finding.name:<13} {finding.detail}{cure}"


def examine() -> list[Finding]:
    """Everything that the doctor looks at, in the order of the report."""
    return [
        check_python(),
        check_torchvision(),
        *check_packages(),
        check_memory(),
        check_disk(),
        check_data(),
        check_accelerator(),
        *check_optional(),
        *check_ray(),
    ]


def check_python() -> Finding:
    """Check the version of Python."""
    version = platform.python_version()
    if sys.version_info[:2] >= MINIMUM_PYTHON:
        return Finding("python", "OK", version)
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    return Finding("python", "FAIL", version, f"make the environment with a newer one: make env PYTHON=python{wanted}")


def check_torchvision() -> Finding:
    """Whether torchvision imports beside this torch, by itself or by our cure."""
    from mcliplib._torchvision_compat import ensure_torchvision

    try:
        pair = f"torch {metadata.version('torch')}, torchvision {metadata.version('torchvision')}"
        cured = ensure_torchvision()
    except metadata.PackageNotFoundError as error:
        return Finding("torch pair", "FAIL", f"{error.name} is not installed", INSTALL_CURE)
    except UserError as error:
        return Finding("torch pair", "FAIL", str(error), INSTALL_CURE)
    note = "; its compiled operators do not load here, mcliplib declares what its import needs" if cured else ""
    return Finding("torch pair", "OK", pair + note)


def check_packages() -> Iterator[Finding]:
    """Each required distribution against the range in the package's metadata; the good ones share one line."""
    try:
        from packaging.requirements import Requirement

        needed = [Requirement(line) for line in metadata.requires("mcliplib") or []]
    except (ImportError, metadata.PackageNotFoundError) as error:
        yield Finding("packages", "FAIL", f"{error.name} is not installed", INSTALL_CURE)
        return
    needed = [need for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    faults = [fault for need in needed if (fault := _package_fault(need))]
    if len(faults) < len(needed):
        yield Finding("packages", "OK", f"{len(needed) - len(faults)} of {len(needed)} required packages fit")
    yield from faults


def _package_fault(need: "Requirement") -> Finding | None:
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return Finding(need.name, "FAIL", f"not installed, {need} is needed", INSTALL_CURE)
    if need.specifier.contains(version, prereleases=True):
        return None
    return Finding(need.name, "FAIL", f"version {version}, {need} is needed", INSTALL_CURE)


def check_memory() -> Finding:
    """Check how much memory is free."""
    try:
        import psutil
    except ImportError:
        return Finding("memory", "WARN", "unknown: psutil is missing", INSTALL_CURE)
    free = psutil.virtual_memory().available / 2**30
    detail = f"{free:.1f} GiB available; training wants {MEMORY_GIB:.0f}, `make test` {TESTS_GIB:.0f}"
    if free < MEMORY_GIB:
        return Finding("memory", "WARN", detail, f"close other programs: training wants about {MEMORY_GIB:.0f} GiB")
    note = "" if free >= TESTS_GIB else " (run its two halves in one process: pytest -n 1)"
    return Finding("memory", "OK", detail + note)


def check_disk() -> Finding:
    """Check how much of the disk is free."""
    free = shutil.disk_usage(REPOSITORY).free / 2**30
    detail = f"{free:.1f} GiB free"
    if free >= DISK_GIB:
        return Finding("disk", "OK", detail)
    return Finding("disk", "WARN", detail, f"free some space: about {DISK_GIB:.0f} GiB for checkpoints and the book")


def check_data() -> Finding:
    """Whether every shard that the cards of the data sets name is there, and no other."""
    cure = "work in a clone of the repository (pip install --no-deps -e .), or run `mcliplib data build`"
    try:
        from mcliplib.data import data_root, list_datasets, shard_paths

        shards = [path for name in list_datasets() for path in shard_paths(name)]
    except UserError as error:
        return Finding("data", "FAIL", str(error), cure)
    except ImportError as error:
        return Finding("data", "WARN", f"unknown: {error}", INSTALL_CURE)
    if not shards:
        return Finding("data", "FAIL", f"no data set in {data_root()}", cure)
    return Finding("data", "OK", f"{len(shards)} shards in {data_root()}")


def check_accelerator() -> Finding:
    """Name the GPU, or say what computes instead."""
    try:
        import torch
    except ImportError:
        return Finding("accelerator", "WARN", "unknown: torch does not import", INSTALL_CURE)
    if torch.cuda.is_available():
        return Finding("accelerator", "OK", torch.cuda.get_device_name())
    from mcliplib.precision import computed

    trained_in = computed("auto", torch.device("cpu"))
    note = f"{torch.get_num_threads()} CPU threads, which every chapter fits; training computes in {trained_in}"
    return Finding("accelerator", "OK", f"none; {note}")


def check_optional() -> Iterator[Finding]:
    """Look for the programs and packages that only some tasks need."""
    for name, (purpose, cure) in OPTIONAL.items():
        try:
            found = shutil.which(name) if name in _PROGRAMS else metadata.version(name)
        except metadata.PackageNotFoundError:
            found = None
        absent = Finding(name, "WARN", f"absent; only needed for {purpose}", cure)
        yield Finding(name, "OK", found) if found else absent


def check_ray() -> Iterator[Finding]:
    """Look for processes of Ray that outlived the run that had started them."""
    with contextlib.suppress(ImportError):
        import psutil

        names = [str(one.info["name"]) for one in psutil.process_iter(["name"])]
        if left := [name for name in names if name.startswith(("raylet", "gcs_server", "ray::"))]:
            detail = f"{len(left)} processes of Ray are running"
            yield Finding("ray", "WARN", detail, "if no run uses them, as after a killed one: ray stop --force")
