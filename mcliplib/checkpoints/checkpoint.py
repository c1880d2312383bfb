"""Save and load whole models. Our own files are safetensors that carry the settings: a file is enough to rebuild it.

Formats:
    "safetensors": ours; in training or folded form.
    "mobileclip": the released `mobileclip_*.pt`, as the paper's code reads it.
    "open_clip": a state dict that `open_clip.create_model(..., pretrained=PATH)` reads.

MobileCLIP-B is two functions with the same weights' names and shapes: the released one, and timm's (see `vit`). A file
in the released format gives the first, one in open_clip's the second.
"""

import json
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from mcliplib.checkpoints import formats
from mcliplib.checkpoints.files import (
    Contents,
    check_finite,
    read_checkpoint,
    read_header,
    write_safetensors,
    write_torch,
)
from mcliplib.checkpoints.fit import find_faults, identify, likely_cause
from mcliplib.checkpoints.formats import config_from_json, config_to_json
from mcliplib.checkpoints.wrappers import plain_names, unwrapped
from mcliplib.errors import UserError
from mcliplib.files import blaming, fitted, read_json
from mcliplib.hub import locate
from mcliplib.layers.cpu import is_for_cpu, optimize_for_cpu
from mcliplib.layers.fold import is_folded
from mcliplib.model import MobileCLIP, ModelConfig, build
from mcliplib.reparam import reparameterize

__all__ = ["FORMATS", "load_checkpoint", "load_model", "read_header", "save_checkpoint"]

_Model = TypeVar("_Model", bound=nn.Module)
FORMATS = tuple(formats.FORMATS)


def save_checkpoint(
    model: nn.Module, path: str | Path, format: str = "safetensors", *, metadata: dict[str, str] | None = None
) -> None:
    """Write a model's weights; the file appears whole or not at all.

    Args:
        model: a model in training form; with "safetensors" also folded, or optimized for CPUs. Of a wrapped one
            (torch.compile, DataParallel, DistributedDataParallel, AveragedModel), the model inside is written.
        path: the file to write. A PyTorch file in the two foreign formats, unless its name ends in .safetensors.
        format: "safetensors" (with settings), "mobileclip" or "open_clip". The foreign ones do not hold the pixels'
            mean and standard deviation; open_clip takes OpenAI's for a local file unless it is told otherwise
            (`image_mean=(0, 0, 0), image_std=(1, 1, 1)`).
        metadata: further strings for a safetensors file's header (training data, licence, ...).

    Raises:
        TypeError: not a MobileCLIP.
        ValueError: unknown format.
        UserError: the format has no place for this model.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown checkpoint format {format!r}; known: {', '.join(FORMATS)}")
    inner = unwrapped(model)
    path, weights, header = Path(path).expanduser(), plain_names(inner.state_dict()), dict(metadata or {})
    if format == "safetensors":
        ours = {"format": formats.OURS, "config": config_to_json(inner.config)}
        ours |= {"folded": json.dumps(is_folded(inner)), "for_cpu": json.dumps(is_for_cpu(inner))}
        return write_safetensors(weights, path, {**header, **ours})
    _check_format_holds(inner, inner.config, format)
    named = formats.to_format(weights, inner.config, format)
    if path.suffix == ".safetensors":
        return write_safetensors(named, path, {"format": "pt", **header})
    if header:
        raise UserError(f"{path}: a PyTorch file holds no metadata; name a .safetensors file")
    return write_torch(named, path)


def load_checkpoint(model: _Model, path: str | Path) -> _Model:
    """Fill a model with a file's weights, all of them or none.

    Args:
        model: changed in place; its settings too, where the file's format stands for another function of the same
            weights (MobileCLIP-B). Of a wrapped one, the model inside is filled.
        path: a file in any of the formats (which one is read from its contents), a training run's folder, or
            `hf-hub:OWNER/REPO`.

    Returns:
        `model`.

    Raises:
        UserError: no such file, not a checkpoint, or weights or settings of another model; names them and the likely
            cause.
    """
    inner = unwrapped(model)
    path = locate(path, inner.config.name)
    _fill(inner, read_checkpoint(path), path)
    return model


def load_model(path: str | Path, name: str | None = None, config: ModelConfig | None = None) -> MobileCLIP:
    """The model that a file holds, in the form (training, folded, for CPUs) in which it was saved, in eval mode.

    Our files say what they hold; of a foreign one the model is told by the names and shapes of its weights.

    Args:
        path: a file in any of the formats, a training run's folder, or `hf-hub:OWNER/REPO`.
        name: the preset that it should hold; narrows down which file of a repository is meant.
        config: what to build where the file does not say; by its names and shapes if None.

    Raises:
        UserError: as `load_checkpoint`, or no preset fits.
    """
    path = locate(path, name)
    contents = read_checkpoint(path)
    if "config" in contents.header:
        return _fill(_from_header(contents, path), contents, path)
    if config is None:
        format = _format_of(contents, path)
        config = identify(contents, format)
        if config is None:
            raise UserError(f"{path}: of format {format!r}, but fits no preset; build it and use load_checkpoint")
    return _fill(build(config).eval(), contents, path)


def _fill(model: MobileCLIP, contents: Contents, path: Path) -> MobileCLIP:
    format = _format_of(contents, path)
    config = formats.as_computed(model.config, format)
    _check_format_holds(model, config, format)
    weights = model.state_dict()
    own_names = dict(zip(plain_names(weights), weights, strict=True))  # a compiled tower has other names inside
    if faults := find_faults({plain: weights[name] for plain, name in own_names.items()}, config, contents, format):
        cause = likely_cause(model, contents, format)
        raise UserError(f"{path}: does not fit {model.config.name}; {cause}; {faults}")
    places = formats.places_of(own_names, format)
    check_finite({there.name: contents.tensors[there.name] for there in places.values()}, str(path))
    model.load_state_dict(
        {own_names[name]: there.layout.read(contents.tensors[there.name]) for name, there in places.items()}
    )
    if config != model.config:
        model.image_encoder.take_stem_of(config.image)  # type: ignore[operator]
        model.config = config
    return model


def _from_header(contents: Contents, path: Path) -> MobileCLIP:
    header = contents.header
    config = config_from_json(header["config"], f"{path}: config")
    folded, for_cpu = (
        fitted(read_json(header.get(name, default), f"{path}: {name}", most=10), bool, f"{path}: {name}")
        # A folded file that does not say so is of the time when every folded model was laid out for CPUs.
        for name, default in (("folded", ""), ("for_cpu", "true"))
    )
    faults = (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError)
    with blaming(f"{path}: no model can be built from its config", "; save it with save_checkpoint", faults):
        with torch.device("meta"):  # takes no memory
            claimed = sum(one.numel() for one in build(config).parameters())
        held = sum(one.numel() for one in contents.tensors.values())
        if claimed > 4 * held + 1_000_000:  # folded models have fewer numbers than what they are built as
            raise UserError(f"{path}: config is of a model of {claimed:,} numbers, the file holds {held:,}")
        model = build(config).eval()
        model = reparameterize(model) if folded else model
        return optimize_for_cpu(model) if folded and for_cpu else model


def _format_of(contents: Contents, path: Path) -> str:
    for name, format in formats.FORMATS.items():
        if format.owns(contents):
            return name
    some = ", ".join(list(contents.tensors)[:3])
    raise UserError(f"{path}: in no format that mcliplib knows ({', '.join(FORMATS)}); it begins with {some}")


def _check_format_holds(model: MobileCLIP, config: ModelConfig, format: str) -> None:
    if lacks := formats.FORMATS[format].lacks(config):
        raise UserError(f"{config.name} has {lacks}, for which the format {format!r} has no place")
    if format != "safetensors" and is_folded(model):
        raise UserError(f"only mcliplib's own files hold folded models; use the training form with {format!r}")
