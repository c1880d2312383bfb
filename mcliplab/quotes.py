"""How the book quotes numbers: those of the records, and the paper's."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcliplib.errors import UserError
from mcliplib.results import RESULTS, load, near_names

PUBLISHED = RESULTS.with_name("published.json")  # the paper's numbers, the only ones that no run of ours wrote
QUOTED = re.compile(  # a number in a text that is read outside of the book too: README, notebooks
    r"<!-- (?P<role>result|published): (?P<reference>[^>]+?) -->(?P<shown>.*?)<!-- /(?P=role) -->", re.DOTALL
)


def value(name: str, path: str, directory: Path | str | None = None) -> Any:
    """One number (or text) of a record: `path` leads through its values, or else names another member (`seconds`).

    Raises:
        UserError: no such record or no such path; near names are listed.
    """
    content = load(name, directory)
    steps = path.split(".")
    here: Any = content["values"] if steps[0] in content["values"] else content
    for step in steps:
        if not isinstance(here, Mapping) or step not in here:
            known = list(here) if isinstance(here, Mapping) else []
            raise UserError(f"result {name!r} has no {path!r}: {step!r} is unknown{near_names(step, known)}")
        here = here[step]
    return here


def render(reference: str, directory: Path | str | None = None) -> str:
    """The text of `NAME.path.to.value|format`, as the book's `result` role and README's spans show it.

    The format is Python's (`.1f`, `,`); `%` alone means `.1%`, none means `str`.

    Raises:
        UserError: the reference is malformed or leads nowhere, or its format does not fit the value.
    """
    target, _, spec = reference.strip().partition("|")
    name, dot, path = target.strip().partition(".")
    if not (name and dot and path):
        raise UserError(f"{reference!r} is not of the form NAME.path.to.value|format")
    found = value(name, path, directory)
    if isinstance(found, Mapping | list):
        raise UserError(f"result {target.strip()!r} is not a single value")
    try:
        return format(found, ".1%" if spec.strip() == "%" else spec.strip())
    except ValueError as error:
        raise UserError(f"{reference!r}: {error}") from error


def published(name: str) -> dict[str, str]:
    """The published number of that name: its `value`, `unit`, `what` it is, and its `source` in the bibliography.

    Raises:
        UserError: there is none of that name.
    """
    known: dict[str, dict[str, str]] = json.loads(PUBLISHED.read_text())
    if name not in known:
        raise UserError(f"no published number {name!r} in {PUBLISHED.name}{near_names(name, list(known))}")
    return known[name]


def quoted(role: str, reference: str) -> str:
    """The text that the book's role of that name, `result` or `published`, shows for a reference."""
    return render(reference) if role == "result" else published(reference)["value"]
