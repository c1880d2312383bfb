"""Weights in and out: safetensors files that carry the model's settings, so that a file is enough to rebuild it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mcliplib.errors import UserError
from mcliplib.image_encoder import MCiConfig
from mcliplib.model import MobileCLIP, ModelConfig, build
from mcliplib.reparam import reparameterize
from mcliplib.text_encoder import TextConfig

FORMATS = ("safetensors",)
MAX_LISTED = 10


def save_checkpoint(
    model: MobileCLIP, path: str | Path, format: str = "safetensors", *, metadata: dict[str, str] | None = None
) -> None:
    """Write a model's weights and settings; the file appears whole or not at all.

    Args:
        model: a model in training or folded form.
        path: the file to write.
        format: "safetensors".
        metadata: further strings for the file's header (training data, licence, ...).

    Raises:
        ValueError: unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown checkpoint format {format!r}; known: {', '.join(FORMATS)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        **(metadata or {}),
        "format": "mcliplib",
        "config": json.dumps(dataclasses.asdict(model.config)),
        "folded": json.dumps(is_folded(model)),
    }
    temporary = path.with_name(path.name + ".tmp")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary, header)
    temporary.replace(path)


def load_checkpoint(model: MobileCLIP, path: str | Path) -> MobileCLIP:
    """Fill a model with a file's weights, all of them or none.

    Args:
        model: changed in place.
        path: a file from `save_checkpoint`.

    Returns:
        `model`.

    Raises:
        UserError: no such file, not a checkpoint, or weights of another model; names them and the likely cause.
    """
    tensors, header = _read(Path(path))
    _check_keys(model, tensors, header, Path(path))
    model.load_state_dict(tensors)
    return model


def load_model(path: str | Path) -> MobileCLIP:
    """The model that a file holds, in the form (training or folded) in which it was saved, in eval mode.

    Raises:
        UserError: as `load_checkpoint`.
    """
    header = read_header(path)
    try:
        model = build(config_from_json(header["config"])).eval()
        folded = json.loads(header["folded"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: holds no mcliplib settings ({error!r}); save it with save_checkpoint") from error
    return load_checkpoint(reparameterize(model) if folded else model, path)


def read_header(path: str | Path) -> dict[str, str]:
    """The strings beside the weights: "format", "config" (JSON), "folded", and what the saver added.

    Raises:
        UserError: no such file, or not a safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or save it again") from error


def is_folded(model: nn.Module) -> bool:
    """Whether the model has been reparameterized: the image tower's BatchNorms are gone."""
    return not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def config_from_json(text: str) -> ModelConfig:
    """The settings that `save_checkpoint` wrote as JSON."""
    raw = json.loads(text)
    return ModelConfig(
        name=raw["name"],
        embed_dim=raw["embed_dim"],
        image=MCiConfig(**_tuples(raw["image"])),
        text=TextConfig(**raw["text"]),
        vocab=None if raw["vocab"] is None else tuple(raw["vocab"]),
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (not a dict)


def _check_keys(model: MobileCLIP, tensors: dict[str, Tensor], header: dict[str, str], path: Path) -> None:
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} {list(tensors[name].shape)} for {list(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    faults = [
        f"{label} {len(names)}: {', '.join(names[:MAX_LISTED])}{' ...' if len(names) > MAX_LISTED else ''}"
        for label, names in (("missing", missing), ("unknown", unknown), ("wrong shape", shapes))
        if names
    ]
    if "config" in header and config_from_json(header["config"]).vocab != model.config.vocab:
        faults.append("its token ids stand for other tokens")
    if faults:
        raise UserError(
            f"{path}: does not fit {model.config.name}; {_likely_cause(model, header)}; {'; '.join(faults)}"
        )


def _likely_cause(model: MobileCLIP, header: dict[str, str]) -> str:
    if "config" not in header:
        return "it is not a file of mcliplib's format"
    saved, folded = config_from_json(header["config"]), header.get("folded") == "true"
    if folded != is_folded(model):
        return f"the file is {'folded' if folded else 'not folded'}, the model is not alike (use load_model)"
    if saved.name != model.config.name:
        return f"it holds {saved.name}"
    return "it was saved with other settings (context length, vocabulary); use load_model"


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
