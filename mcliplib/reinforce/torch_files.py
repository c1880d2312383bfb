"""Many small torch files of one structure, such as a shard's `KEY.pth.gz`, without unpickling each of them.

A torch file is a zip archive: a pickle that says what there is, and the numbers of each tensor in a file of their own.
Where the pickle is the same to the byte, so are names, shapes and types; then only the numbers are read. The first file
of each structure, and whatever is not plain, goes through `torch.load(weights_only=True)`.
"""

import io
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mcliplib.reinforce.zip_members import read_member


class _Place(NamedTuple):
    """Where a tensor's numbers are."""

    name: str
    storage: str  # the file in the archive, behind its folder
    dtype: torch.dtype
    shape: tuple[int, ...]


_layouts: dict[bytes, tuple[_Place, ...]] = {}
_MOST = 64  # structures that are remembered


def load_torch(content: bytes, archive: zipfile.ZipFile) -> Any:
    """What a torch file holds, as `torch.load(weights_only=True)` gives it.

    Args:
        content: of the file.
        archive: the same, opened.

    Raises:
        Exception: the file is damaged, or would run code when opened.
    """
    files = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in files or "byteorder" not in files:
        return _load(content)
    structure = read_member(content, archive, files["byteorder"]) + read_member(content, archive, files["data.pkl"])
    if structure in _layouts:
        places = _layouts[structure]
        return {place.name: _tensor(place, read_member(content, archive, files[place.storage])) for place in places}
    loaded = _load(content)
    if (found := _layout(loaded, archive, files)) and len(_layouts) < _MOST:
        _layouts[structure] = found
    return loaded


def _load(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(place: _Place, content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=place.dtype).view(place.shape)  # ValueError where too short


def _layout(loaded: Any, archive: zipfile.ZipFile, files: Mapping[str, str]) -> tuple[_Place, ...] | None:
    """Each tensor's file, if all are plain and the numbers leave no doubt which is whose."""
    if not isinstance(loaded, dict) or not all(_plain(name, value) for name, value in loaded.items()):
        return None
    stored = {name: archive.read(full) for name, full in files.items() if name.startswith("data/")}
    places = []
    for name, value in loaded.items():
        content = value.view(torch.uint8).numpy().tobytes()
        owners = [storage for storage, one in stored.items() if one == content]
        if len(owners) != 1:
            return None
        places.append(_Place(name, owners[0], value.dtype, tuple(value.shape)))
    return tuple(places)


def _plain(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.dim() > 0
        and value.numel() > 0
        and value.is_contiguous()
        and value.dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)
        and value.storage_offset() == 0
        and value.untyped_storage().nbytes() == value.numel() * value.element_size()
    )
