"""Which data sets there are: everything is read from the `card.json` in each set's folder."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from mcliplib.data.reader import ReadReport, read_shards
from mcliplib.data.sample import Sample
from mcliplib.data.shards import TAR_SUFFIXES, expand_braces
from mcliplib.errors import MissingFileError, UserError
from mcliplib.files import Range, check_regular, fitted, plain_name, read_json
from mcliplib.images import MAX_PIXELS

ROLES = ("train", "eval")
Card = dict[str, Any]
Count = Annotated[int, Range(0, 1 << 50)]
Sha256 = Annotated[str, Range(64, 64)]


class _Shard(TypedDict):
    file: str
    samples: NotRequired[Count]
    bytes: NotRequired[Count]
    sha256: NotRequired[Sha256]


class _Task(TypedDict):
    kind: Literal["zero-shot", "retrieval"]
    label_field: NotRequired[str]
    classes: NotRequired[list[str]]
    photos: NotRequired[bool]


class _Card(TypedDict):
    """The fields of `card.json` that programs read; the others are for people."""

    role: Literal["train", "eval"]
    shards: list[_Shard]
    tasks: NotRequired[dict[str, _Task]]
    licences: NotRequired[dict[str, Count]]
    count: NotRequired[Count]


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
        UserError: there is no such set, or its card is damaged.
    """
    path = data_root() / plain_name(name, "data set") / "card.json"
    if not path.is_file():
        known = ", ".join(sorted(card.parent.name for card in data_root().glob("*/card.json"))) or "none"
        raise UserError(f"no data set {name!r} in {data_root()}: the sets are {known}")
    card: Card = fitted(read_json(path), _Card, str(path))
    return {"tasks": {}, "licences": {}, "count": 0, **card}


def shard_paths(name: str | os.PathLike[str]) -> list[Path]:
    """The shards that a name stands for.

    Args:
        name: a set, a reinforced set in the data folder, or "train" / "eval" for all sets of that role, or a folder,
            or a .tar / .tar.gz file, or a brace pattern such as ``shards/{000000..000003}.tar``.

    Raises:
        UserError: the name stands for nothing, or the set's shards are not those of its card.
    """
    text = os.fspath(name)
    if text in ROLES:
        return [path for one in list_datasets(text) for path in shard_paths(one)]
    if "{" in text and not os.path.exists(text):
        return [Path(path) for path in expand_braces(text)]
    if text.endswith(TAR_SUFFIXES):
        return [Path(text)]
    if os.sep in text or os.path.isdir(text):
        return _shards_in(Path(text))
    if (data_root() / text / "manifest.json").is_file():
        return _shards_in(data_root() / text)
    card, folder = get_card(text), data_root() / text
    check_shards(folder, card["shards"], tars_in(folder), "card.json")
    return [folder / shard["file"] for shard in card["shards"]]


def check_shards(
    folder: Path, listed: Sequence[Mapping[str, Any]], found: Sequence[Path], by: str, *, verify: bool = False
) -> None:
    """Whether a set's shards are those that its card or manifest lists: names and sizes, and hashes if wanted.

    Args:
        folder: of the set.
        listed: for each shard its `file`, and `bytes` and `sha256` where they are known.
        found: the shards that are read; if they are all that the folder holds, no listed one may be missing.
        by: the listing file's name.
        verify: whether to compare hashes too, which reads all bytes.

    Raises:
        UserError: a shard is missing, stray, listed twice, outside the folder, or another one.
    """
    shards = {plain_name(one["file"], f"{folder / by}: shard"): one for one in listed}
    if len(shards) < len(listed):
        raise UserError(f"{folder / by}: lists a shard twice")
    if stray := sorted({path.name for path in found} - set(shards)):
        raise UserError(f"{folder}: holds {stray[0]}, which its {by} does not list; remove it, or make the set anew")
    whole = {path.name for path in found} >= {path.name for path in tars_in(folder)}
    for name in shards if whole else [path.name for path in found]:
        wanted, path = shards[name], folder / name
        if not path.exists():
            raise MissingFileError(f"{path} is missing, which {by} lists; fetch or make it again")
        if (size := check_regular(path).stat().st_size) != wanted.get("bytes", size):
            raise UserError(f"{path}: has {size:,} bytes, {wanted['bytes']:,} in {by}; fetch or make it again")
        if verify and "sha256" in wanted:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted["sha256"]:
                    raise UserError(f"{path}: is not the shard that {by} lists (its hash differs); fetch it again")


def tars_in(folder: Path) -> list[Path]:
    """The shards in a folder, sorted."""
    return sorted(path for path in folder.glob("*") if path.name.endswith(TAR_SUFFIXES) and path.name[0] != ".")


def _shards_in(folder: Path) -> list[Path]:
    if not (found := tars_in(folder)):
        raise UserError(f"no .tar or .tar.gz shards in {folder}: name a data set, a folder of shards or a shard")
    return found


def load_samples(
    names: str | Iterable[str],
    *,
    report: ReadReport | None = None,
    max_pixels: int = MAX_PIXELS,
    side: int | None = None,
) -> list[Sample]:
    """Decode whole sets into memory, in shard order.

    Args:
        names: one name or several, each as `shard_paths` takes it.
        report: filled with what was read and skipped.
        max_pixels: as `read_shards`.
        side: as `read_shards`.

    Raises:
        UserError: as `shard_paths` and `read_shards`.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    paths = [path for name in wanted for path in shard_paths(name)]
    return list(read_shards(paths, report=report, max_pixels=max_pixels, side=side))
