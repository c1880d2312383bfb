"""Every model by name, in one table."""

from dataclasses import replace

from mcliplib.image_encoder import MCiConfig
from mcliplib.model import ModelConfig
from mcliplib.text_encoder import TextConfig

MCI0 = MCiConfig(widths=(64, 128, 256, 512), depths=(2, 6, 10, 2))
MCT = TextConfig(width=512, layers=4, repmixers=1)

PRESETS: dict[str, ModelConfig] = {
    "mobileclip_s0": ModelConfig("mobileclip_s0", 512, MCI0, MCT),
    # The same design for two CPU cores and 64-pixel pictures: trains from nothing in minutes.
    "mobileclip_nano": ModelConfig(
        "mobileclip_nano",
        embed_dim=256,
        image=MCiConfig(widths=(16, 48, 96, 192), depths=(1, 2, 4, 1), image_size=64, layer_scale=0.1),
        text=TextConfig(width=192, layers=2, context_length=16, layer_scale=0.1),
    ),
}


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return list(PRESETS)


def get_config(
    name: str,
    *,
    image_size: int | None = None,
    context_length: int | None = None,
    vocab: tuple[int, ...] | None = None,
) -> ModelConfig:
    """A preset's settings, with what is given changed.

    Args:
        name: one of `list_models()`.
        image_size: pixels the preprocessing makes.
        context_length: tokens per text.
        vocab: ascending CLIP ids to restrict the embedding to (`mcliplib.restrict_vocab`).

    Raises:
        ValueError: no preset has this name.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(PRESETS)}")
    config = PRESETS[name]
    image, text = config.image, config.text
    if image_size is not None:
        image = replace(image, image_size=image_size)
    if context_length is not None:
        text = replace(text, context_length=context_length)
    if vocab is not None:
        text = replace(text, vocab_size=len(vocab))
    return replace(config, image=image, text=text, vocab=vocab)
