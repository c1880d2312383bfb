"""A model's settings as JSON, for the header of our files."""

import dataclasses
import json
from typing import Any

from mcliplib.image_encoder import MCiConfig
from mcliplib.model import ModelConfig, PixelConfig
from mcliplib.text_encoder import TextConfig
from mcliplib.vit import ViTConfig


def config_to_json(config: ModelConfig) -> str:
    """The settings as a JSON object."""
    return json.dumps(dataclasses.asdict(config))


def config_from_json(text: str) -> ModelConfig:
    """What `config_to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: the text is not such an object.
    """
    raw = json.loads(text)
    image_config = ViTConfig if "patch_size" in raw["image"] else MCiConfig
    return ModelConfig(
        name=raw["name"],
        embed_dim=raw["embed_dim"],
        image=image_config(**_tuples(raw["image"])),
        text=TextConfig(**raw["text"]),
        vocab=None if raw["vocab"] is None else tuple(raw["vocab"]),
        pixels=PixelConfig(**_tuples(raw["pixels"])),
    )


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
