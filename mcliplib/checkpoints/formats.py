"""The three formats: which models each can hold, and where each of our tensors stands in it.

A format is a list of rules. Each rule is a regular expression and its replacement; all are applied in order to one of
our names, and what comes out is the other program's name. Some tensors are also stored in another shape. The released
`mobileclip_*.pt` files are bare state dicts of the paper's own code; open_clip's files have timm's image tower under
`visual.trunk` and CLIP's text tower under `text`; ours also hold the model's settings as JSON.
"""

import dataclasses
import json
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from mcliplib.checkpoints.files import OURS, Contents
from mcliplib.errors import UserError
from mcliplib.files import fitted, read_json
from mcliplib.image_encoder import MCiConfig
from mcliplib.model import ModelConfig
from mcliplib.vit import ViTConfig, released_stem, timm_stem


def config_to_json(config: ModelConfig) -> str:
    """The settings as a JSON object."""
    return json.dumps(dataclasses.asdict(config))


def config_from_json(text: str, where: str = "config") -> ModelConfig:
    """Read the settings that `config_to_json` wrote.

    Args:
        text: from a file's header.
        where: file and field, for messages.

    Raises:
        UserError: names the field that is missing, unknown, of another type, or out of range.
    """
    raw = read_json(text, where, most=1 << 22)
    vit = isinstance(raw, dict) and isinstance(raw.get("image"), dict) and "patch_size" in raw["image"]
    config: ModelConfig = fitted(raw, _ViTModel if vit else _MCiModel, where)
    for part in (config, config.image, config.text, config.pixels):
        for name, value in vars(part).items():
            least, most = _RANGES.get(name, (-math.inf, math.inf))
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, int | float) and not least <= one <= most:
                    raise UserError(f"{where}: {name} must be from {least:g} to {most:g}, got {reprlib.repr(value)}")
    if isinstance(config.image, MCiConfig) and not 4 <= len(config.image.widths) == len(config.image.depths) <= 5:
        raise UserError(f"{where}: widths and depths must be of four or five stages")
    if config.pixels.interpolation not in ("bilinear", "bicubic"):
        raise UserError(f"{where}: interpolation must be bilinear or bicubic, got {config.pixels.interpolation[:80]!r}")
    if config.vocab is not None and (
        len(config.vocab) != config.text.vocab_size or list(config.vocab) != sorted(set(config.vocab))
    ):
        raise UserError(f"{where}: vocab must be {config.text.vocab_size} ascending ids")
    return ModelConfig(**vars(config))


# Far more than any preset has, and little enough to build a model and see that it does not fit its file.
_RANGES: dict[str, tuple[int | float, int | float]] = {
    **dict.fromkeys(("embed_dim", "widths", "width", "head_dim", "patch_size", "grid"), (1, 16384)),
    **dict.fromkeys(("repmixers", "stem_padding"), (0, 8)),
    **{"depths": (0, 64), "layers": (0, 128), "context_length": (2, 4096), "image_size": (32, 8192)},
    **{"mlp_ratio": (0.01, 32), "drop_path": (0, 0.999), "layer_scale": (0, 1e3), "norm_eps": (1e-12, 1)},
    **{"vocab_size": (1, 1 << 20), "vocab": (0, 1 << 20), "mean": (-10, 10), "std": (1e-6, 1e6)},
}


@dataclasses.dataclass(frozen=True)
class _MCiModel(ModelConfig):
    image: MCiConfig


@dataclasses.dataclass(frozen=True)
class _ViTModel(ModelConfig):
    image: ViTConfig


class Layout(Enum):
    """How a file stores one of our tensors: what `write` makes of ours, and `read` of the file's."""

    SAME = (lambda x: x, lambda x: x)
    TRANSPOSED = (lambda x: x.T, lambda x: x.T)  # a projection as [in, out]
    PER_CHANNEL = (lambda x: x[:, None, None], lambda x: x[:, 0, 0])  # a vector [C] as [C, 1, 1]
    LEADING_ONE = (lambda x: x[None], lambda x: x[0])  # x as [1, ...]
    LEADING_TWO = (lambda x: x[None, None], lambda x: x[0, 0])  # x as [1, 1, ...]

    def __init__(self, write: Callable[[Tensor], Tensor], read: Callable[[Tensor], Tensor]) -> None:
        self.write, self.read = write, read


class Rule(NamedTuple):
    """One step from our name to the file's."""

    pattern: str
    replacement: str | Callable[[re.Match[str]], str]
    layout: Layout = Layout.SAME


class Place(NamedTuple):
    """Where one of our tensors stands in a file, and how."""

    name: str
    layout: Layout


def place(name: str, rules: Sequence[Rule]) -> Place:
    """Where the rules put the tensor of this name."""
    layout = Layout.SAME
    for rule in rules:
        name, count = re.subn(rule.pattern, rule.replacement, name)
        if count and rule.layout is not Layout.SAME:
            layout = rule.layout
    return Place(name, layout)


def _network_index(match: re.Match[str]) -> str:
    """All parts stand in one list: stage 0, down, stage 1, down, stage 2, down, positions, stage 3."""
    stage, part = int(match[1]), match[2]
    index = {"downsample": 2 * stage - 1, "position": 2 * stage, "blocks": 2 * stage + (stage == 3)}[part]
    return f"image_encoder.model.network.{index}"


MOBILECLIP_RULES = (
    # image tower, MCi
    Rule(r"^image_encoder\.stem\.(\d)\.(?=(conv|scale)\.(conv|bn)\.|skip\.)", r"image_encoder.model.patch_embed.\1."),
    Rule(r"^image_encoder\.stages\.(\d)\.(downsample|position|blocks)", _network_index),
    Rule(r"\.spatial\.large\.", ".proj.0.lkb_origin."),
    Rule(r"\.spatial\.small\.", ".proj.0.small_conv."),
    Rule(r"\.spatial\.se\.reduce\.", ".proj.0.se.fc1."),
    Rule(r"\.spatial\.se\.expand\.", ".proj.0.se.fc2."),
    Rule(r"\.pointwise\.", ".proj.1."),
    Rule(r"(network\.6)\.conv\.", r"\1.pe."),
    Rule(r"\.token_mixer\.attention\.", ".token_mixer."),
    Rule(r"^image_encoder\.expand\.", "image_encoder.model.conv_exp."),
    Rule(r"^image_encoder\.proj\.weight$", "image_encoder.model.head.proj", Layout.TRANSPOSED),
    # image tower, ViT
    Rule(r"^image_encoder\.stem\.([024])\.", lambda m: f"image_encoder.model.patch_emb.{int(m[1]) // 2}.block."),
    Rule(r"(patch_emb\.\d\.block)\.bn\.", r"\1.norm."),
    Rule(r"(patch_emb\.2\.block)\.", r"\1.conv."),
    Rule(r"^image_encoder\.class_token$", "image_encoder.model.cls_token", Layout.LEADING_TWO),
    Rule(r"^image_encoder\.positions$", "image_encoder.model.pos_embed.pos_embed.pos_embed", Layout.LEADING_TWO),
    Rule(r"^image_encoder\.layers\.", "image_encoder.model.transformer."),
    Rule(r"^image_encoder\.head\.norm\.", "image_encoder.model.post_transformer_norm."),
    Rule(r"^image_encoder\.head\.proj\.weight$", "image_encoder.model.classifier.proj", Layout.TRANSPOSED),
    # text tower
    Rule(r"^text_encoder\.embedding\.", "text_encoder.embedding_layer."),
    Rule(r"^text_encoder\.positions$", "text_encoder.positional_embedding.pos_embed.pos_embed", Layout.LEADING_TWO),
    Rule(r"^text_encoder\.layers\.(\d+)\.(block\.)?", r"text_encoder.transformer.\1."),
    Rule(r"^text_encoder\.head\.norm\.", "text_encoder.final_layer_norm."),
    Rule(r"^text_encoder\.head\.proj\.weight$", "text_encoder.projection_layer", Layout.TRANSPOSED),
    # transformer layers of either tower
    Rule(r"(transformer\.\d+)\.norm1\.", r"\1.pre_norm_mha.0."),
    Rule(r"(transformer\.\d+)\.attention\.qkv\.", r"\1.pre_norm_mha.1.qkv_proj."),
    Rule(r"(transformer\.\d+)\.attention\.proj\.", r"\1.pre_norm_mha.1.out_proj."),
    Rule(r"(transformer\.\d+)\.norm2\.", r"\1.pre_norm_ffn.0."),
    Rule(r"(transformer\.\d+)\.fc1\.", r"\1.pre_norm_ffn.1."),
    Rule(r"(transformer\.\d+)\.fc2\.", r"\1.pre_norm_ffn.4."),
    # convolutional blocks of either tower
    Rule(r"(patch_embed\.\d|\.mixer|proj\.1|conv_exp)\.conv\.", r"\1.rbr_conv.0."),
    Rule(r"(patch_embed\.\d|\.mixer|conv_exp)\.scale\.", r"\1.rbr_scale."),
    Rule(r"(patch_embed\.\d|\.mixer|proj\.1)\.skip\.", r"\1.rbr_skip."),
    Rule(r"(token_mixer)\.norm\.", r"\1.norm.rbr_skip."),
    Rule(r"\.conv_ffn\.", ".convffn."),
    Rule(r"(layer_scale(_\d)?)\.gamma$", r"\1", Layout.PER_CHANNEL),
)


OPEN_CLIP_RULES = (
    Rule(r"^image_encoder\.", "visual.trunk."),
    # image tower, timm's FastVit
    Rule(r"^visual\.trunk\.proj\.", "visual.trunk.head.fc."),
    Rule(r"\.downsample\.spatial\.large\.", ".downsample.proj.0.large_conv."),
    Rule(r"\.downsample\.spatial\.small\.", ".downsample.proj.0.small_conv."),
    Rule(r"\.downsample\.spatial\.se\.", ".downsample.proj.0.se."),
    Rule(r"\.downsample\.pointwise\.", ".downsample.proj.1."),
    Rule(r"\.position\.conv\.", ".pos_emb.pos_enc."),
    Rule(r"\.token_mixer\.attention\.", ".token_mixer."),
    Rule(r"^visual\.trunk\.expand\.", "visual.trunk.final_conv."),
    Rule(r"\.se\.reduce\.", ".se.fc1."),
    Rule(r"\.se\.expand\.", ".se.fc2."),
    Rule(r"(trunk\.stem\.\d|\.mixer|proj\.1|final_conv)\.conv\.(?=(conv|bn)\.)", r"\1.conv_kxk.0."),
    Rule(r"(trunk\.stem\.\d|\.mixer|final_conv)\.scale\.", r"\1.conv_scale."),
    Rule(r"(trunk\.stem\.\d|\.mixer|proj\.1)\.skip\.", r"\1.identity."),
    Rule(r"\.token_mixer\.norm\.", ".token_mixer.norm.identity."),
    Rule(r"\.conv_ffn\.", ".mlp."),
    Rule(r"\.gamma$", ".gamma", Layout.PER_CHANNEL),
    # image tower, timm's VisionTransformer
    Rule(r"trunk\.stem\.0\.weight$", "trunk.patch_embed.proj.weight"),
    Rule(
        r"trunk\.stem\.([024])\.(?=(conv|bn|weight|bias)\b)", lambda m: f"trunk.patch_embed.backbone.{int(m[1]) // 2}."
    ),
    Rule(r"(backbone\.2)\.", r"\1.conv."),
    Rule(r"trunk\.class_token$", "trunk.cls_token", Layout.LEADING_TWO),
    Rule(r"trunk\.positions$", "trunk.pos_embed", Layout.LEADING_ONE),
    Rule(r"trunk\.layers\.", "trunk.blocks."),
    Rule(r"(trunk\.blocks\.\d+)\.attention\.", r"\1.attn."),
    Rule(r"(trunk\.blocks\.\d+)\.(fc[12])\.", r"\1.mlp.\2."),
    Rule(r"trunk\.head\.norm\.", "trunk.norm."),
    Rule(r"trunk\.head\.proj\.", "trunk.head."),
    # text tower
    Rule(r"^text_encoder\.embedding\.", "text.token_embedding."),
    Rule(r"^text_encoder\.positions$", "text.positional_embedding"),
    Rule(r"^text_encoder\.head\.norm\.", "text.ln_final."),
    Rule(r"^text_encoder\.head\.proj\.weight$", "text.text_projection", Layout.TRANSPOSED),
    Rule(r"^text_encoder\.layers\.", "text.transformer.resblocks."),
    Rule(r"(resblocks\.\d+)\.norm([12])\.", r"\1.ln_\2."),
    Rule(r"(resblocks\.\d+)\.attention\.qkv\.", r"\1.attn.in_proj_"),
    Rule(r"(resblocks\.\d+)\.attention\.proj\.", r"\1.attn.out_proj."),
    Rule(r"(resblocks\.\d+)\.fc1\.", r"\1.mlp.c_fc."),
    Rule(r"(resblocks\.\d+)\.fc2\.", r"\1.mlp.c_proj."),
)


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


def places_of(names: Iterable[str], format: str) -> dict[str, Place]:
    """Where each of our tensors stands in a file of this format; no two may stand in one place."""
    found = {name: place(name, FORMATS[format].rules) for name in names}
    assert len({there.name for there in found.values()}) == len(found)
    return found


def to_format(weights: dict[str, Tensor], config: ModelConfig, format: str) -> dict[str, Tensor]:
    """Our state dict under the format's names and in its shapes."""
    there = places_of(weights, format)
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
        MOBILECLIP_RULES,
        lambda contents: any(name.startswith("image_encoder.model.") for name in contents.tensors),
        _mobileclip_lacks,
        released_stem,
    ),
    "open_clip": Format(
        OPEN_CLIP_RULES,
        lambda contents: any(name.startswith("visual.") for name in contents.tensors),
        _open_clip_lacks,
        timm_stem,
    ),
    "safetensors": Format((), _in_our_names, lambda config: ""),
}
