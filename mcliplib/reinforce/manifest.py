"""`manifest.json`: what a reinforced data set is made of and how; no times in it, so that equal runs give equal bytes.

While a run is under way, the manifest holds only what the set is being made of (`identity`), and each finished shard
has a record in the folder `.records`. At the end, all is put into the manifest.
"""

import dataclasses
import importlib.metadata
import json
import platform
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from mcliplib.data import registry
from mcliplib.data.registry import Count, Sha256
from mcliplib.errors import MissingFileError, UserError
from mcliplib.files import blaming, fitted, plain_name, read_json
from mcliplib.reinforce.augment import AugmentSettings
from mcliplib.reinforce.settings import Captioner, ReinforceSettings, Teacher
from mcliplib.reinforce.store import Store
from mcliplib.reinforce.work import ShardDone, Task

MANIFEST = "manifest.json"
RECORDS = ".records"
_FORMAT = 1
_LIBRARIES = ("mcliplib", "torch", "pillow", "numpy")  # those that the bytes depend on
Json = dict[str, Any]


class _Input(TypedDict):
    samples: Count
    sha256: Sha256


class _Skip(TypedDict):
    shard: str
    key: str
    reason: str


class _Written(_Input):
    bytes: Count


class _Record(_Written):
    skipped: list[_Skip]


class _Shard(_Written):
    file: str
    input: str


class _Counts(TypedDict):
    samples: Count
    reasons: dict[str, Count]


class _Begun(TypedDict):
    status: Literal["complete", "incomplete"]
    identity: Json
    inputs: list[_Input]


class _Complete(_Begun):
    counts: _Counts
    shards: list[_Shard]
    skipped: list[_Skip]
    images: NotRequired[list[str]]  # the sets that hold the pictures, where this one does not


def checked(manifest: Any, where: str) -> Json:
    """A manifest, complete or not, of the declared form.

    Raises:
        UserError: names the field that is not.
    """
    complete = isinstance(manifest, dict) and manifest.get("status") == "complete"
    found: Json = fitted(manifest, _Complete if complete else _Begun, where)
    for shard in found["shards"] if complete else []:
        plain_name(shard["file"], f"{where}: shard")
    return found


def identity(teachers: Sequence[Teacher], captioner: Captioner | None, settings: ReinforceSettings) -> Json:
    """The settings and models that decide the output, beside the input."""
    return {
        "settings": json.loads(json.dumps(dataclasses.asdict(settings))),  # as it is read again
        "teachers": [{**_named(one), "dim": one.dim, "image_size": one.image_size} for one in teachers],
        "captioner": captioner and _named(captioner),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
    }


def _named(model: Teacher | Captioner) -> Json:
    return {"name": model.name, "identity": dict(model.identity)}


class MadeWith(NamedTuple):
    """The teachers and augmentations of a reinforced set, which its reader must know."""

    teacher_dims: tuple[int, ...]
    augment: AugmentSettings


def made_with(manifest: Mapping[str, Any]) -> MadeWith:
    """Read from a set's manifest what it was made with.

    Raises:
        UserError: the manifest is of another kind.
    """
    with blaming(f"{MANIFEST}: does not say what the set was made with", kinds=(KeyError, TypeError, ValueError)):
        named = manifest["identity"]
        stored: dict[str, Any] = named["settings"]["augment"]
        settings: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in stored.items()}
        return MadeWith(tuple(int(teacher["dim"]) for teacher in named["teachers"]), AugmentSettings(**settings))


def read_finished(folder: Path) -> Json:
    """The manifest of a finished set.

    Raises:
        UserError: there is none, or it is damaged, or the set is not finished.
    """
    path = folder / MANIFEST
    try:
        found = checked(read_json(path), str(path))
    except MissingFileError:
        raise MissingFileError(f"{folder}: has no {MANIFEST}; make a set with `mcliplib reinforce`") from None
    if found["status"] != "complete":
        raise UserError(f"{folder}: is not finished; run `mcliplib reinforce` again with --resume")
    return found


def check_shards(folder: Path, found: Sequence[Path], *, verify: bool = False) -> None:
    """Whether the shards that are read are those of the set's manifest (see `mcliplib.data.registry.check_shards`).

    Raises:
        UserError: no finished set, or a shard is missing, stray or another one.
    """
    registry.check_shards(folder, read_finished(folder)["shards"], found, MANIFEST, verify=verify)


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raises a UserError that names what a run was begun with and what it would go on with, if they differ."""
    differences = [f"{name} was {old}, is {new}" for name, old, new in _differences("", before, now)]
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise UserError(
            f"{where} was begun otherwise: {'; '.join(differences[:3])}{more}; "
            "resume it with what it was begun with, or choose another output folder"
        )


def input_records(tasks: Sequence[Task]) -> list[Json]:
    """Return the inputs as the manifest lists them: name, number of samples and SHA-256 of each."""
    return [{"name": task.source.name, "samples": task.count, "sha256": task.sha256} for task in tasks]


def check_input(before: Sequence[Json] | None, tasks: Sequence[Task], where: str) -> None:
    """Raises a UserError if the input is not that of the run's beginning; names may differ, samples may not."""
    then = [(one["samples"], one["sha256"]) for one in before or []]
    now = [(task.count, task.sha256) for task in tasks]
    if before is None or then == now:
        return
    if len(then) != len(now):
        what = f"it had {len(then)} parts, this one has {len(now)}"
    else:
        changed = [task.source.name for task, old, new in zip(tasks, then, now, strict=True) if old != new]
        what = f"{changed[0]} is another"
    raise UserError(f"{where} was begun with another input: {what}; name the same one, or another output folder")


def beginning(named: Json, tasks: Sequence[Task]) -> Json:
    """Return the manifest of a run that has begun and has no shard yet: format, identity and inputs."""
    return {"format": _FORMAT, "status": "incomplete", "identity": named, "inputs": input_records(tasks)}


def whole(named: Json, tasks: Sequence[Task], records: Mapping[int, Json], status: str) -> Json:
    """Return the manifest of the finished shards, with every skip that is known, also those of unfinished shards."""
    done = [(task, records[task.index]) for task in tasks if task.index in records]
    skipped = [skip for task in tasks for skip in skips_of(task, records)]
    return {
        **beginning(named, tasks),
        "status": status,
        "counts": {
            "samples": sum(record["samples"] for _, record in done),
            "skipped": len(skipped),
            "reasons": dict(sorted(Counter(skip["reason"] for skip in skipped).items())),
        },
        "shards": [
            {"file": task.file, "input": task.source.name, "input_broken": task.broken}
            | {name: record[name] for name in ("samples", "bytes", "sha256")}
            for task, record in done
        ],
        "skipped": skipped,
    }


def skips_of(task: Task, records: Mapping[int, Json]) -> list[Json]:
    """Return the shard's skips: those of the survey, or all of them once the shard is done."""
    if task.index in records:
        return list(records[task.index]["skipped"])
    return [dataclasses.asdict(skip) for skip in task.skips.values()]


def skip_count(task: Task, records: Mapping[int, Json]) -> int:
    """How many skips of the shard are known."""
    return len(records[task.index]["skipped"] if task.index in records else task.skips)


def record_of(done: ShardDone) -> Json:
    """One finished shard as its record holds it."""
    return {
        "samples": done.samples,
        "bytes": done.written.bytes,
        "sha256": done.written.sha256,
        "skipped": [dataclasses.asdict(skip) for skip in done.skipped],
    }


def record_name(task: Task) -> str:
    """Where the record of a finished shard is."""
    return f"{RECORDS}/{task.index:06d}.json"


def finished(store: Store, tasks: Sequence[Task]) -> dict[int, Json]:
    """The records of the shards that are there to the byte."""
    found = {}
    for task in tasks:
        record = store.read_json(record_name(task), lambda one, where: fitted(one, _Record, where))
        if record is not None and store.written(task.file) == (record["bytes"], record["sha256"]):
            found[task.index] = record
    return found


def is_whole(store: Store, complete: Json, tasks: Sequence[Task]) -> bool:
    """Whether all shards of a finished set are there to the byte.

    If not, the manifest becomes that of a run which is under way, with records of all shards: those that are not as
    their records say will be made again.
    """
    shards, waiting = complete["shards"], deque(complete["skipped"])
    if len(shards) != len(tasks):
        raise UserError(f"{store.root}/{MANIFEST}: lists {len(shards)} shards of {len(tasks)} inputs; make it anew")
    if damaged := [one["file"] for one in shards if store.written(one["file"]) != (one["bytes"], one["sha256"])]:
        warnings.warn(f"{store.root}: {len(damaged)} shards are damaged, made again: {damaged[0]} ...", stacklevel=3)
        for task, shard in zip(tasks, shards, strict=True):
            record = {name: shard[name] for name in ("samples", "bytes", "sha256")} | {"skipped": []}
            while waiting and waiting[0]["shard"] == shard["input"]:
                record["skipped"].append(waiting.popleft())
            store.write_json(record_name(task), record)
        store.write_json(MANIFEST, beginning(complete["identity"], tasks))
    return not damaged


def _differences(name: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, old and new value of each leaf that differs."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for inner in sorted({*before, *now}):
            yield from _differences(f"{name}.{inner}".lstrip("."), before.get(inner), now.get(inner))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{name}[{number}]", old, new)
    elif before != now:
        yield name, before, now
