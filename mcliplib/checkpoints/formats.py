"""The three formats: which models each can hold, and where each of our tensors stands in it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from mcliplib.checkpoints import mobileclip_names, open_clip_names
from mcliplib.checkpoints.files import OURS, Contents
from mcliplib.checkpoints.naming import Place, Rule, places
from mcliplib.image_encoder import MCiConfig
from mcliplib.model import ModelConfig
from mcliplib.vit import ViTConfig, released_stem, timm_stem

BIAS = {True: "visual.trunk.head.bias", False: "visual.trunk.head.fc.bias"}  # by whether the image tower is a ViT


class Format(NamedTuple):
    """A way of naming weights.

    Attributes:
        rules: from our names to the format's.
        owns: whether a file with these contents is of this format.
        lacks: what a model has that the format has no place for, or "".
        stem: the ViT as the programs that read and write this format compute it; names and shapes do not tell.
    """

    rules: Sequence[Rule]
    owns: Callable[[Contents], bool]
    lacks: Callable[[ModelConfig], str]
    stem: Callable[[ViTConfig], ViTConfig] = lambda config: config


def as_computed(config: ModelConfig, format: str) -> ModelConfig:
    """The settings of the function that a file of this format stands for."""
    if not isinstance(config.image, ViTConfig):
        return config
    return replace(config, image=FORMATS[format].stem(config.image))


def places_of(names: Sequence[str], format: str) -> dict[str, Place]:
    """Where each of our tensors stands in a file of this format."""
    return places(names, FORMATS[format].rules)


def to_format(weights: dict[str, Tensor], config: ModelConfig, format: str) -> dict[str, Tensor]:
    """Our state dict under the format's names and in its shapes."""
    there = places_of(list(weights), format)
    named = {there[name].name: there[name].layout.write(tensor) for name, tensor in weights.items()}
    return {**named, **constants(config, format)}


def constants(config: ModelConfig, format: str) -> dict[str, Tensor]:
    """Tensors that the format has and the model has not: they must be zero.

    open_clip's image towers always end in a projection with a bias; the released V1 models have none.
    """
    if format != "open_clip" or config.image.proj_bias:
        return {}
    return {BIAS[isinstance(config.image, ViTConfig)]: torch.zeros(config.embed_dim)}


def _mobileclip_lacks(config: ModelConfig) -> str:
    image = config.image
    if image.proj_bias:
        return "a bias in the image projection"
    if isinstance(image, ViTConfig) and not image.conv_stem:
        return "a ViT without convolutional stem"
    if isinstance(image, MCiConfig) and (len(image.widths) != 4 or image.layer_norm):
        return "an MCi with five stages or LayerNorm"
    return _stem_lacks(config, "mobileclip")


def _open_clip_lacks(config: ModelConfig) -> str:
    return "the text tower MCt" if config.text.repmixers else _stem_lacks(config, "open_clip")


def _stem_lacks(config: ModelConfig, format: str) -> str:
    image = config.image
    if config == as_computed(config, format) or not isinstance(image, ViTConfig):
        return ""
    return f"a patch stem padded by {image.stem_padding} and LayerNorms with eps {image.norm_eps:g}"


def _in_our_names(contents: Contents) -> bool:
    """Our own files, and the bare state dict of one of our models."""
    ours = any(re.match(r"image_encoder\.(?!model\.)", name) for name in contents.tensors)
    return contents.header.get("format") == OURS or ours


FORMATS = {
    "mobileclip": Format(
        mobileclip_names.RULES,
        lambda contents: any(name.startswith("image_encoder.model.") for name in contents.tensors),
        _mobileclip_lacks,
        released_stem,
    ),
    "open_clip": Format(
        open_clip_names.RULES,
        lambda contents: any(name.startswith("visual.") for name in contents.tensors),
        _open_clip_lacks,
        timm_stem,
    ),
    "safetensors": Format((), _in_our_names, lambda config: ""),
}
