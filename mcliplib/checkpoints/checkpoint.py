"""Save and load whole models. Our own files are safetensors that carry the settings: a file is enough to rebuild it.

Formats:
    "safetensors": ours; in training or folded form.
    "mobileclip": the released `mobileclip_*.pt`, as the paper's code reads it.
    "open_clip": a state dict that `open_clip.create_model(..., pretrained=PATH)` reads.
"""

import json
from pathlib import Path

from mcliplib.checkpoints import formats
from mcliplib.checkpoints.files import Contents, read, read_header, write_safetensors, write_torch
from mcliplib.checkpoints.fit import find_faults, identify, is_folded, likely_cause
from mcliplib.checkpoints.settings import config_from_json, config_to_json
from mcliplib.errors import UserError
from mcliplib.model import MobileCLIP, build
from mcliplib.reparam import reparameterize

__all__ = ["FORMATS", "is_ours", "load_checkpoint", "load_model", "read_header", "save_checkpoint"]

FORMATS = tuple(formats.FORMATS)


def save_checkpoint(
    model: MobileCLIP, path: str | Path, format: str = "safetensors", *, metadata: dict[str, str] | None = None
) -> None:
    """Write a model's weights; the file appears whole or not at all.

    Args:
        model: a model in training form; with "safetensors" also in folded form.
        path: the file to write. A PyTorch file in the two foreign formats, unless its name ends in .safetensors.
        format: "safetensors" (with settings), "mobileclip" or "open_clip".
        metadata: further strings for a safetensors file's header (training data, licence, ...).

    Raises:
        ValueError: unknown format.
        UserError: the format has no place for this model.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown checkpoint format {format!r}; known: {', '.join(FORMATS)}")
    path, weights, header = Path(path), model.state_dict(), dict(metadata or {})
    if format == "safetensors":
        folded = json.dumps(is_folded(model))
        ours = {"format": formats.OURS, "config": config_to_json(model.config), "folded": folded}
        return write_safetensors(weights, path, {**header, **ours})
    _check_format_holds(model, format)
    named = formats.to_format(weights, model.config, format)
    if path.suffix == ".safetensors":
        return write_safetensors(named, path, {"format": "pt", **header})
    if header:
        raise UserError(f"{path}: a PyTorch file holds no metadata; name a .safetensors file")
    return write_torch(named, path)


def is_ours(path: str | Path) -> bool:
    """Whether a file is in mcliplib's own format, by its header.

    Raises:
        UserError: no such file, or a damaged .safetensors file.
    """
    path = Path(path)
    return path.suffix == ".safetensors" and read_header(path).get("format") == formats.OURS


def load_checkpoint(model: MobileCLIP, path: str | Path) -> MobileCLIP:
    """Fill a model with a file's weights, all of them or none.

    Args:
        model: changed in place.
        path: a file in any of the formats; which one is read from its contents.

    Returns:
        `model`.

    Raises:
        UserError: no such file, not a checkpoint, or weights of another model; names them and the likely cause.
    """
    path = Path(path)
    return _fill(model, read(path), path)


def load_model(path: str | Path) -> MobileCLIP:
    """The model that a file holds, in the form (training or folded) in which it was saved, in eval mode.

    Our files say what they hold; of a foreign one the model is told by the names and shapes of its weights.

    Raises:
        UserError: as `load_checkpoint`, or no preset fits.
    """
    path = Path(path)
    contents = read(path)
    format = _format_of(contents, path)
    if format == "safetensors":
        model = _from_header(contents.header, path)
    else:
        config = identify(contents, format)
        if config is None:
            raise UserError(
                f"{path}: of format {format!r}, but fits no preset; build its model and use load_checkpoint"
            )
        model = build(config).eval()
    return _fill(model, contents, path)


def _fill(model: MobileCLIP, contents: Contents, path: Path) -> MobileCLIP:
    format = _format_of(contents, path)
    _check_format_holds(model, format)
    weights = model.state_dict()
    if faults := find_faults(weights, model.config, contents, format):
        cause = likely_cause(model, contents, format)
        raise UserError(f"{path}: does not fit {model.config.name}; {cause}; {faults}")
    places = formats.places_of(list(weights), format)
    model.load_state_dict({name: there.layout.read(contents.tensors[there.name]) for name, there in places.items()})
    return model


def _from_header(header: dict[str, str], path: Path) -> MobileCLIP:
    try:
        model = build(config_from_json(header["config"])).eval()
        return reparameterize(model) if json.loads(header["folded"]) else model
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its settings cannot be read ({error!r}); save it with save_checkpoint") from error


def _format_of(contents: Contents, path: Path) -> str:
    for name, format in formats.FORMATS.items():
        if format.owns(contents):
            return name
    some = ", ".join(list(contents.tensors)[:3])
    raise UserError(f"{path}: in no format that mcliplib knows ({', '.join(FORMATS)}); it begins with {some}")


def _check_format_holds(model: MobileCLIP, format: str) -> None:
    if lacks := formats.FORMATS[format].lacks(model.config):
        raise UserError(f"{model.config.name} has {lacks}, for which the format {format!r} has no place")
    if format != "safetensors" and is_folded(model):
        raise UserError(f"only mcliplib's own files hold folded models; use the training form with {format!r}")
