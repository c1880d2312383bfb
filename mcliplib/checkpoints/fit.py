"""Whether a file's weights fit a model; if not, what is wrong and why that probably is."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mcliplib.checkpoints.files import Contents
from mcliplib.checkpoints.formats import FORMATS, constants, places_of
from mcliplib.checkpoints.settings import config_from_json
from mcliplib.model import MobileCLIP, ModelConfig, build
from mcliplib.presets import PRESETS

MAX_LISTED = 10


class Faults(NamedTuple):
    """Names in the file's own naming."""

    missing: list[str]
    unknown: list[str]
    wrong: list[str]  # "name [shape] for [shape]"

    def __bool__(self) -> bool:
        return any(self)

    def __str__(self) -> str:
        labels = ("missing", "unknown", "not fitting")
        return "; ".join(
            f"{label} {len(names)}: {', '.join(names[:MAX_LISTED])}{' ...' if len(names) > MAX_LISTED else ''}"
            for label, names in zip(labels, self, strict=True)
            if names
        )


def find_faults(weights: dict[str, Tensor], config: ModelConfig, contents: Contents, format: str) -> Faults:
    """Compare a file with the state dict of a model that it is to fill."""
    wanted = {there.name: there.layout.write(weights[name]) for name, there in places_of(list(weights), format).items()}
    zeros = constants(config, format)
    stored = contents.tensors
    wrong = [
        f"{name} {list(stored[name].shape)} for {list(tensor.shape)}"
        for name, tensor in {**wanted, **zeros}.items()
        if name in stored and stored[name].shape != tensor.shape
    ]
    wrong += [f"{name} (must be zero)" for name in zeros if name in stored and stored[name].count_nonzero()]
    if "config" in contents.header and config_from_json(contents.header["config"]).vocab != config.vocab:
        wrong.append("its token ids stand for other tokens")
    return Faults(
        missing=[name for name in wanted if name not in stored],
        unknown=[name for name in stored if name not in wanted and name not in zeros],
        wrong=wrong,
    )


def likely_cause(model: MobileCLIP, contents: Contents, format: str) -> str:
    """A guess at why a file does not fit a model."""
    if format == "safetensors":
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
    """The first preset that a foreign file fits exactly."""
    for config in PRESETS.values():
        if not FORMATS[format].lacks(config):
            with torch.device("meta"):
                weights = build(config).state_dict()
            if not find_faults(weights, config, contents, format):
                return config
    return None


def is_folded(model: nn.Module) -> bool:
    """Whether the model has been reparameterized: the image tower's BatchNorms are gone."""
    return not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def _cause_in_our_file(model: MobileCLIP, header: dict[str, str]) -> str:
    saved, folded = config_from_json(header["config"]), header.get("folded") == "true"
    if folded != is_folded(model):
        return f"the file is {'folded' if folded else 'not folded'}, the model is not alike (use load_model)"
    if saved.name != model.config.name:
        return f"it holds {saved.name}"
    return "it was saved with other settings (context length, vocabulary); use load_model"
