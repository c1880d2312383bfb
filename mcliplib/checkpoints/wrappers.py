"""Weights out of what other programs put around them: wrappers of a model, and files of a whole training."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from mcliplib.errors import UserError
from mcliplib.model import MobileCLIP

# Components that a wrapper adds to its model's names: DataParallel and AveragedModel, torch.compile, FSDP.
_ADDED = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTER = "n_averaged"  # AveragedModel's own tensor
_TOWERS = ("image_encoder", "text_encoder", "visual", "text")
_DEPTH = 3

Where: TypeAlias = tuple[str, ...]  # names to follow into a file's nested dictionaries


def unwrapped(model: nn.Module) -> MobileCLIP:
    """The model inside torch.compile's, DataParallel's, DistributedDataParallel's or AveragedModel's wrapper.

    Raises:
        TypeError: there is none of ours inside.
    """
    inner: Any = model
    while not isinstance(inner, MobileCLIP):
        parts = inner._modules if isinstance(inner, nn.Module) else {}
        inner = parts.get("_orig_mod", parts.get("module"))
        if inner is None:
            raise TypeError(f"model must be a MobileCLIP, or one in a wrapper of PyTorch's, got {type(model).__name__}")
    return inner


def plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that the model without wrappers gives them."""
    parts = {name: [part for part in name.split(".") if part not in _ADDED] for name in tensors if name != _COUNTER}
    prefix = "".join(f"{part}." for part in _prefix(parts.values()))
    plain = {name: ".".join(names).removeprefix(prefix) for name, names in parts.items()}
    if len(set(plain.values())) < len(plain):  # two wrappers in one file
        return tensors
    return {plain[name]: tensors[name] for name in plain}


def find_weights(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The one state dict of a model in what a PyTorch file holds: the whole of it, or under a name like "state_dict".

    Raises:
        UserError: there is none, or several.
    """
    found = {where: plain_names(weights) for where, weights in _state_dicts(loaded, (), _DEPTH, set())}
    models = {where: weights for where, weights in found.items() if any(map(_of_a_tower, weights))}
    if len(models) > 1:
        places = ["".join(f"[{part!r}]" for part in where) for where in models]
        raise UserError(
            f"{path}: holds several models ({', '.join('.'.join(where) for where in models)}); save the one that you "
            f"want alone: torch.save(torch.load({path.name!r}, weights_only=True){places[0]}, 'model.pt')"
        )
    candidates = [*models.values(), *found.values()]
    if not candidates:
        keys = [str(name)[:80] for name in list(loaded)[:5]] if isinstance(loaded, dict) else []
        raise UserError(f"{path}: holds no state dict (names with tensors); it holds {', '.join(keys) or 'no names'}")
    return candidates[0]


def _state_dicts(loaded: Any, where: Where, depth: int, seen: set[int]) -> Iterator[tuple[Where, dict[str, Tensor]]]:
    if not isinstance(loaded, dict) or not loaded or depth == 0 or id(loaded) in seen:
        return
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()):
        yield where, loaded
        return
    seen.add(id(loaded))  # a small file may hold one dictionary under a thousand names, and in each the next
    for name, value in loaded.items():
        yield from _state_dicts(value, (*where, str(name)[:80]), depth - 1, seen)


def _of_a_tower(name: str) -> bool:
    return name.split(".")[0] in _TOWERS


def _prefix(names: Iterable[list[str]]) -> list[str]:
    """The components before a tower's name; Lightning puts the name of its own attribute there."""
    return next((parts[:index] for parts in names for index, part in enumerate(parts) if part in _TOWERS), [])
