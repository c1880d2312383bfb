"""Whether a file's weights fit a model; if not, what is wrong and why that probably is."""

import dataclasses

import torch
from torch import Tensor

from mcliplib.checkpoints.files import Contents
from mcliplib.checkpoints.formats import FORMATS, as_computed, config_from_json, constants, places_of
from mcliplib.layers.cpu import is_for_cpu
from mcliplib.layers.fold import is_folded
from mcliplib.model import MobileCLIP, ModelConfig, build
from mcliplib.presets import PRESETS

MAX_LISTED = 10
_ONLY_AT_THE_START = {"image_size", "drop_path", "layer_scale"}  # of the preprocessing, of training, of fresh weights


def find_faults(weights: dict[str, Tensor], config: ModelConfig, contents: Contents, format: str) -> str:
    """The faults for which a file does not fit a model with this state dict, in the file's own names; "" if it fits."""
    wanted = {there.name: there.layout.write(weights[name]) for name, there in places_of(weights, format).items()}
    zeros = constants(config, format)
    stored = contents.tensors
    wrong = [
        f"{name} {list(stored[name].shape)} for {list(tensor.shape)}"
        for name, tensor in {**wanted, **zeros}.items()
        if name in stored and stored[name].shape != tensor.shape
    ]
    wrong += [
        f"{name} {stored[name].dtype} for {tensor.dtype}"
        for name, tensor in wanted.items()
        if name in stored and tensor.is_floating_point() and not stored[name].is_floating_point()
    ]
    wrong += [f"{name} (must be zero)" for name in zeros if name in stored and stored[name].count_nonzero()]
    if "config" in contents.header:
        wrong += differences(config_from_json(contents.header["config"]), config)
    faults = {
        "missing": [name for name in wanted if name not in stored],
        "unknown": [name for name in stored if name not in wanted and name not in zeros],
        "not fitting": wrong,
    }
    return "; ".join(
        f"{label} {len(names)}: {', '.join(names[:MAX_LISTED])}{' ...' if len(names) > MAX_LISTED else ''}"
        for label, names in faults.items()
        if names
    )


def differences(saved: ModelConfig, config: ModelConfig) -> list[str]:
    """Settings of the function in which a file and a model differ, though names and shapes may be equal."""
    found = ["its token ids stand for other tokens"] if saved.vocab != config.vocab else []
    for part in ("image", "text", "pixels"):
        ours, theirs = (dataclasses.asdict(getattr(one, part)) for one in (config, saved))
        changed = [key for key in ours if key not in _ONLY_AT_THE_START and theirs.get(key) != ours[key]]
        found += [f"setting {part}.{key} {theirs.get(key)} for {ours[key]}" for key in changed]
    return found


def likely_cause(model: MobileCLIP, contents: Contents, format: str) -> str:
    """A guess at why a file does not fit a model."""
    if "config" in contents.header:
        return _cause_in_our_file(model, contents.header)
    if is_folded(model):
        return "the model is folded, and only mcliplib's own files hold folded models"
    if any("reparam" in name for name in contents.tensors):
        return "the file is of a reparameterized (folded) model; get the training form"
    holds = identify(contents, format)
    if holds is not None and holds.name != model.config.name:
        return f"it holds {holds.name}"
    return "it is of another model, or of one with another context length or vocabulary"


def identify(contents: Contents, format: str) -> ModelConfig | None:
    """The first preset that a file without settings fits exactly."""
    for config in PRESETS.values():
        config = as_computed(config, format)
        if not FORMATS[format].lacks(config):
            with torch.device("meta"):
                weights = build(config).state_dict()
            if not find_faults(weights, config, contents, format):
                return config
    return None


def _cause_in_our_file(model: MobileCLIP, header: dict[str, str]) -> str:
    saved, folded = config_from_json(header["config"]), header.get("folded") == "true"
    for_cpu = folded and header.get("for_cpu", "true") == "true"
    if folded != is_folded(model):
        return f"the file is {'folded' if folded else 'not folded'}, the model is not alike (use load_model)"
    if for_cpu != is_for_cpu(model):
        return f"the file is {'' if for_cpu else 'not '}optimized for CPUs, the model is not alike (use load_model)"
    if saved.name != model.config.name:
        return f"it holds {saved.name}"
    return "it was saved with other settings (context length, vocabulary); use load_model"
