"""Where a checkpoint is: "student" (ours), a file, a training run's folder, or `hf-hub:OWNER/REPO[@REVISION]`."""

import re
import reprlib
from pathlib import Path
from typing import NamedTuple

from mcliplib.errors import UserError, first_line
from mcliplib.presets import list_models

PREFIX = "hf-hub:"
STUDENT = "student"
STUDENT_FILE = Path(__file__).parent / "weights" / "student.safetensors"
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
RUN_FILES = ("model.safetensors", "last.pt")  # of a finished run; of one that was stopped


class Repository(NamedTuple):
    """A repository at a revision (a branch, tag or commit; None: its main branch)."""

    name: str
    revision: str | None


def locate(source: str | Path, model: str | None = None) -> Path:
    """The checkpoint's file.

    Args:
        source: "student", the small trained model of this package (a folder of that name is "./student"); a file's
            path (`~` is the home folder), a folder with one (a training run's, or a copy of a repository), or
            `hf-hub:OWNER/REPO`.
        model: the preset that the weights are for, if known.

    Raises:
        UserError: nothing is there, or nothing that looks like a checkpoint.
    """
    if source == STUDENT:
        return STUDENT_FILE
    if isinstance(source, str) and source.startswith(PREFIX):
        return fetch(source, model)
    path = Path(source).expanduser()
    if not path.is_dir():
        return path
    names = [*RUN_FILES, *_candidates(path.resolve().name, model)]
    if found := next((path / name for name in names if (path / name).is_file()), None):
        return found
    raise UserError(f"{path}: is a folder without {' or '.join(RUN_FILES)}; name the checkpoint's file")


def fetch(reference: str, model: str | None) -> Path:
    """Download the checkpoint that a repository holds, or find it in the local cache.

    Tried in order: a released file by the repository's name (`mobileclip_s0.pt` in `apple/MobileCLIP-S0`), our own
    file by the model's name, then the names that open_clip gives its files.

    Args:
        reference: for example `hf-hub:apple/MobileCLIP-S0`.
        model: the preset that the weights are for; any of them if None.

    Returns:
        The file's path in huggingface_hub's cache.

    Raises:
        UserError: no such repository, no network, or no file of these names; says how to fetch one by hand.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, RemoteEntryNotFoundError

    repository = parse(reference)
    candidates = _candidates(repository.name.split("/")[1], model)
    for file in candidates:
        try:
            return Path(hf_hub_download(repository.name, file, revision=repository.revision))
        except RemoteEntryNotFoundError:
            continue
        except (OSError, HFValidationError) as error:
            raise UserError(_by_hand(repository, file, model, error)) from error
    raise UserError(f"{reference}: has none of {', '.join(candidates)}; download its file and pass the file's path")


def parse(reference: str) -> Repository:
    """`hf-hub:OWNER/REPO@REVISION` in its parts.

    Raises:
        UserError: it is not of this form.
    """
    name, at, revision = reference.removeprefix(PREFIX).partition("@")
    parts = name.split("/")
    named = len(parts) == 2 and all(re.fullmatch(r"\w(?:[\w.-]{0,94}\w)?", one, re.ASCII) for one in parts)
    if not named or ".." in name or "--" in name:
        raise UserError(f"{reprlib.repr(reference)} is not of the form {PREFIX}OWNER/REPO (letters, digits, '-_.')")
    if at and (not re.fullmatch(r"[\w./-]{1,200}", revision, re.ASCII) or ".." in revision):
        raise UserError(f"{reprlib.repr(reference)}: after the @ stands a branch, a tag or a commit")
    return Repository(name, revision or None)


def _candidates(repository: str, model: str | None) -> list[str]:
    """MobileCLIP-B-LT holds mobileclip_blt.pt: the family, an underscore, the rest without hyphens."""
    family, _, size = repository.lower().removesuffix("-openclip").partition("-")
    released = [f"{family}_{size.replace('-', '')}.pt"] if size else []
    models = list_models() if model is None else [model]
    own = [name + suffix for name in models for suffix in (".pt", ".safetensors")]
    return list(dict.fromkeys([*released, *own, RUN_FILES[0], *OPEN_CLIP_FILES]))


def _by_hand(repository: Repository, file: str, model: str | None, error: Exception) -> str:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(repository.name, file, revision=repository.revision)
    usage = f'load_model("{file}")' if model is None else f'create_model("{model}", pretrained="{file}")'
    return (
        f"{PREFIX}{repository.name}: cannot fetch {file} ({type(error).__name__}: {first_line(error)}); "
        f"download {url} by hand and pass its path: {usage}"
    )
