"""The records of measured numbers that the book quotes: one JSON file per run, written by nothing but the run."""

import difflib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from mcliplib.errors import UserError
from mcliplib.files import blaming, check_replaceable, fitted, read_json, write_text

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results"


class _Record(TypedDict):
    values: dict[str, Any]
    unit: str | dict[str, Any]
    n: int
    seeds: list[int]
    command: str
    commit: str
    hardware: str
    seconds: float
    date: str


MEMBERS = tuple(_Record.__annotations__)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


def record(
    name: str,
    values: Mapping[str, Any],
    *,
    unit: str | Mapping[str, str],
    n: int,
    seeds: Sequence[int],
    command: str,
    seconds: float,
    directory: Path | str | None = None,
) -> Path:
    """Write the record of one run to `DIRECTORY/NAME.json`, whole or not at all.

    Args:
        name: lower-case letters, digits, `_` and `-`; the book refers to it.
        values: what was measured; mappings may nest.
        unit: the unit of every value, or one unit for each of the names in `values`.
        n: how many items each value was measured on.
        seeds: every seed that the values depend on.
        command: what to type in the repository to get the values again.
        seconds: wall-clock time of the run.
        directory: `data/results` of this checkout unless given.

    Raises:
        UserError: the name is not usable, or a value cannot be written as JSON.
    """
    check_name(name)
    content = {
        "values": dict(values),
        "unit": unit if isinstance(unit, str) else dict(unit),
        "n": n,
        "seeds": list(seeds),
        "command": command,
        "commit": current_commit(),
        "hardware": hardware(),
        "seconds": round(seconds, 2),
        "date": datetime.now(UTC).date().isoformat(),
    }
    with blaming(f"result {name}: not writable as JSON"):
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    path = folder(directory) / f"{name}.json"
    write_text(path, text)
    return path


def check_name(name: str) -> None:
    """Raises a UserError where `name` cannot be a record's."""
    if not _NAME.fullmatch(name):
        raise UserError(f"result name {name!r}: use lower-case letters, digits, '_' and '-'")


def check_writable(name: str, directory: Path | str | None = None) -> None:
    """Raises a UserError where a record of that name could not be written: to be called before hours of work."""
    check_name(name)
    check_replaceable(folder(directory) / f"{name}.json")


def load(name: str, directory: Path | str | None = None) -> dict[str, Any]:
    """The record of that name.

    Raises:
        UserError: there is no such record (near names are listed), or its file is not one.
    """
    check_name(name)
    path = folder(directory) / f"{name}.json"
    if not path.exists():
        raise UserError(f"no result {name!r} in {path.parent}{near_names(name, names(directory))}")
    content = read_json(path)
    if missing := [member for member in MEMBERS if not isinstance(content, dict) or member not in content]:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    return dict(fitted(content, _Record, str(path)))


def folder(directory: Path | str | None = None) -> Path:
    """Where records are: `directory`, else what `MCLIPLIB_RESULTS` names, else `data/results` of this checkout."""
    return Path(directory or os.environ.get("MCLIPLIB_RESULTS") or RESULTS)


def names(directory: Path | str | None = None) -> list[str]:
    """The names of all records, sorted."""
    return sorted(path.stem for path in folder(directory).glob("*.json"))


def current_commit() -> str:
    """The checkout's commit, with `-dirty` after it if tracked files differ from it; `unknown` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        run = subprocess.run(command, cwd=RESULTS.parent.parent, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return run.stdout.strip()


def hardware() -> str:
    """Processor, cores that this process may use, memory, accelerator if any, and the version of torch."""
    import psutil
    import torch

    from mcliplib.threads import usable_cores

    parts = [_processor(), f"{usable_cores()} cores", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"torch {torch.__version__}"])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (model := re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return model[1].strip()
    return platform.processor() or platform.machine()


def near_names(wanted: str, known: Sequence[str]) -> str:
    """The end of a message: the known names that look like the wanted one."""
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or list(known)[:5]
    return f"; there is {', '.join(near)}" if near else ""
