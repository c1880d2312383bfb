"""Which data sets there are: everything is read from the `card.json` in each set's folder."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from webdataset.shardlists import expand_urls

from mcliplib.data.reader import ReadReport, read_shards
from mcliplib.data.sample import Sample
from mcliplib.errors import MissingFileError, UserError

ROLES = ("train", "eval")
Card = dict[str, Any]


def data_root() -> Path:
    """The folder of the data sets: the environment variable MCLIPLIB_DATA, else `data/` of the repository.

    Raises:
        UserError: the folder does not exist.
    """
    named = os.environ.get("MCLIPLIB_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "data"
    if not root.is_dir():
        cure = "correct MCLIPLIB_DATA" if named else "set MCLIPLIB_DATA to the repository's data folder"
        raise MissingFileError(f"no data folder at {root}: {cure}, or run `mcliplib data build --output FOLDER`")
    return root


def list_datasets(role: str | None = None) -> list[str]:
    """Names of the sets in the data folder, sorted; only those of one role ("train" or "eval") if given.

    Raises:
        UserError: unknown role, or no data folder.
    """
    if role is not None and role not in ROLES:
        raise UserError(f"unknown role {role!r}: it is one of {', '.join(ROLES)}")
    names = sorted(card.parent.name for card in data_root().glob("*/card.json"))
    return [name for name in names if role is None or get_card(name)["role"] == role]


def get_card(name: str) -> Card:
    """The machine-readable card of one set.

    Keys: name, title, role, licence, sources, count, shards, image_size, tasks, how_built, limits, ... A zero-shot
    task is `{"kind": "zero-shot", "label_field": F, "classes": [...], "photos": bool}`: the label of a sample is
    `sample.meta[F]`, and `photos` tells prompts what to call the pictures.

    Raises:
        UserError: there is no such set.
    """
    path = data_root() / name / "card.json"
    if not path.is_file():
        known = ", ".join(sorted(card.parent.name for card in data_root().glob("*/card.json"))) or "none"
        raise UserError(f"no data set {name!r} in {data_root()}: the sets are {known}")
    card: Card = json.loads(path.read_text(encoding="utf-8"))
    return card


def shard_paths(name: str | os.PathLike[str]) -> list[Path]:
    """The shards that a name stands for.

    Args:
        name: a set, a reinforced set in the data folder, or "train" / "eval" for all sets of that role, or a folder,
            or a .tar / .tar.gz file, or a brace pattern such as ``shards/{000000..000003}.tar``.

    Raises:
        UserError: the name stands for nothing.
    """
    text = os.fspath(name)
    if text in ROLES:
        return [path for one in list_datasets(text) for path in shard_paths(one)]
    if "{" in text:
        return [Path(url) for url in expand_urls(text)]
    if text.endswith((".tar", ".tar.gz", ".tgz")):
        return [Path(text)]
    if os.sep in text or Path(text).is_dir():
        return _shards_in(Path(text))
    if (data_root() / text / "manifest.json").is_file():
        return _shards_in(data_root() / text)
    card = get_card(text)
    return [data_root() / text / shard["file"] for shard in card["shards"]]


def _shards_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.name.endswith((".tar", ".tar.gz", ".tgz")))
    if not found:
        raise UserError(f"no .tar or .tar.gz shards in {folder}: name a data set, a folder of shards or a shard")
    return found


def load_samples(names: str | Iterable[str], *, report: ReadReport | None = None) -> list[Sample]:
    """Decode whole sets into memory, in shard order.

    Args:
        names: one name or several, each as `shard_paths` takes it.
        report: filled with what was read and skipped.

    Raises:
        UserError: as `shard_paths` and `read_shards`.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    return list(read_shards([path for name in wanted for path in shard_paths(name)], report=report))
