"""Tensors from files that may come from anywhere, and to files that appear whole or not at all."""

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mcliplib.checkpoints.wrappers import find_weights, plain_names
from mcliplib.errors import UserError
from mcliplib.files import blaming, check_regular, fitted, replacing

OURS = "mcliplib"  # the format in the header of our own files
MOST_BYTES = 1 << 35  # of a file: forty times the largest model in float32


class Contents(NamedTuple):
    """The contents of a checkpoint file."""

    tensors: dict[str, Tensor]
    header: dict[str, str]  # the strings beside the weights, in safetensors files and in a run's `last.pt`


def read_checkpoint(path: Path) -> Contents:
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
    path = _checkpoint(Path(path))
    broken = blaming(f"{path}: not a whole safetensors file", "; fetch or save it again")
    with broken, safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def write_safetensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file with these strings in its header."""
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, header)
        _sort_header(temporary)


def _sort_header(path: Path) -> None:
    """Put the header's strings in order: safetensors writes them in another one each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        content = json.loads(file.read(size))
        if "__metadata__" in content:
            content["__metadata__"] = dict(sorted(content["__metadata__"].items()))
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # as long as what safetensors wrote: equal values, and spaces at the end
            file.seek(8)
            file.write(text.ljust(size))


def write_torch(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a bare state dict as a PyTorch file."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:  # by name, PyTorch hides why it cannot write
        torch.save(own, file)


def load_torch(path: Path) -> Any:
    """The contents of a PyTorch file, on the CPU; no code of its own runs, and no size that it claims is believed.

    Raises:
        UserError: no such file, a damaged one, one that would run code, or that is not what it claims to be.
    """
    _checkpoint(path)
    with blaming(f"{path}: not a whole PyTorch file", "; fetch it again"):
        try:
            if zipfile.is_zipfile(path):
                _check_members(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's, of what is refused here in one line
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            carried = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
            what = f" ({carried[1]})" if carried else ""
            raise UserError(
                f"{path}: refused, because opening it would run code that it carries{what}, or it is not a checkpoint; "
                f"ask its author for a .safetensors file, or for its state dict alone"
            ) from error


def check_tensors(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises a UserError where a tensor is not one whose numbers all stand in the file."""
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{where}: {name} is a sparse, quantized or empty (meta) tensor; save it as a plain one")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{where}: {name} claims {tensor.numel():,} numbers, more than the file holds for it")


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises a UserError that names the first tensor with a NaN or infinite number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise UserError(f"{where}: {name} holds NaN or infinite numbers; save or fetch it again")


def _read_torch(path: Path) -> Contents:
    loaded = load_torch(path)
    if isinstance(loaded, dict) and {"config", "model", "average"} <= loaded.keys():  # our own `last.pt`
        part = "model" if loaded["average"] is None else "average"
        weights = fitted(loaded[part], dict[str, Tensor], f"{path}: {part}")
        header = {"format": OURS, "config": fitted(loaded["config"], str, f"{path}: config"), "folded": "false"}
    else:
        weights, header = find_weights(loaded, path), {}
    check_tensors(weights, str(path))
    return Contents(weights, header)


def _check_members(path: Path) -> None:
    """Raises a ValueError where a PyTorch file would need far more memory than its size."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(one.compress_type != zipfile.ZIP_STORED for one in members):
        raise ValueError("its members are compressed")
    if sum(one.file_size for one in members) > path.stat().st_size:
        raise ValueError("its members claim more bytes than it has")


def _checkpoint(path: Path) -> Path:
    """The path, if a file is there that may be a checkpoint.

    Raises:
        UserError: nothing is there, or something that often is in a checkpoint's place.
    """
    with check_regular(path, MOST_BYTES).open("rb") as file:
        start = file.read(256).lstrip()
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull` where it was cloned")
    if re.match(rb"<(!doctype|html|head|body|\?xml)", start, re.IGNORECASE):
        raise UserError(f"{path}: is a web page that was saved instead of the weights; download the file itself")
    if not start:
        kind = "safetensors" if path.suffix == ".safetensors" else "PyTorch"
        raise UserError(f"{path}: not a whole {kind} file (it is empty); fetch or save it again")
    return path


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all parameters and buffers, in the order of their names."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
