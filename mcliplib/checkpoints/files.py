"""Tensors from files that may come from anywhere, and to files that appear whole or not at all."""

import pickle
import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mcliplib.checkpoints.wrappers import find_weights, plain_names
from mcliplib.errors import MissingFileError, UserError, first_line
from mcliplib.files import replacing

OURS = "mcliplib"  # the format in the header of our own files


class Contents(NamedTuple):
    """The contents of a checkpoint file."""

    tensors: dict[str, Tensor]
    header: dict[str, str]  # the strings beside the weights, in safetensors files and in a run's `last.pt`


def read(path: Path) -> Contents:
    """A .safetensors file's contents, or those of a PyTorch file (any other suffix), on the CPU.

    Raises:
        UserError: no such file, a damaged one, or one that would run code when opened.
    """
    if path.suffix != ".safetensors":
        return _read_torch(path)
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return Contents(plain_names(tensors), header)


def read_header(path: str | Path) -> dict[str, str]:
    """The strings beside the weights: "format", "config" (JSON), "folded", and what the saver added.

    Raises:
        UserError: no such file, or not a safetensors file.
    """
    path = _existing(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or save it again") from error


def write_safetensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file with these strings in its header."""
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, header)


def write_torch(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a bare state dict as a PyTorch file."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:  # by name, PyTorch hides why it cannot write
        torch.save(own, file)


def _read_torch(path: Path) -> Contents:
    _existing(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        carried = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        what = f" ({carried[1]})" if carried else ""
        raise UserError(
            f"{path}: refused, because opening it would run code that it carries{what}, or it is not a checkpoint; "
            f"ask its author for a .safetensors file, or for its state dict alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a whole PyTorch file ({first_line(error)}); fetch it again") from error
    if isinstance(loaded, dict) and {"config", "model", "average"} <= loaded.keys():  # our own `last.pt`
        weights = loaded["model"] if loaded["average"] is None else loaded["average"]
        return Contents(weights, {"format": OURS, "config": loaded["config"], "folded": "false"})
    return Contents(find_weights(loaded, path), {})


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    return path
