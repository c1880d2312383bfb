"""Every model by name, in one table."""

from dataclasses import replace

from mcliplib.errors import UserError
from mcliplib.image_encoder import MCiConfig
from mcliplib.model import ModelConfig, PixelConfig
from mcliplib.text_encoder import TextConfig
from mcliplib.vit import ViTConfig, released_stem, timm_stem

# Image towers. MobileCLIP (2311.17049), table 1; MobileCLIP2 (2508.20691) adds MCi3, MCi4 and ViT-L/14.
MCI0 = MCiConfig(widths=(64, 128, 256, 512), depths=(2, 6, 10, 2))
MCI1 = MCiConfig(widths=(64, 128, 256, 512), depths=(4, 12, 20, 4))
MCI2 = MCiConfig(widths=(80, 160, 320, 640), depths=(4, 12, 24, 4))
FIVE_STAGES = MCiConfig((), (), mlp_ratio=4.0, squeeze_excite=False, stem_scale_branch=False, layer_norm=True)
MCI3 = replace(FIVE_STAGES, widths=(96, 192, 384, 768, 1536), depths=(2, 12, 24, 4, 2))
MCI4 = replace(FIVE_STAGES, widths=(128, 256, 512, 1024, 2048), depths=(2, 12, 24, 4, 4))
VIT_B = released_stem(ViTConfig(width=768, layers=12, patch_size=16, grid=14, conv_stem=True))
VIT_L = ViTConfig(width=1024, layers=24, patch_size=14, grid=16, conv_stem=False)

# Text towers.
MCT = TextConfig(width=512, layers=4, repmixers=1)
BASE = TextConfig(width=512, layers=12, repmixers=0)
CAUSAL = replace(BASE, causal=True)
WIDE = replace(BASE, width=768)

ZERO_ONE = PixelConfig()
OPENAI = PixelConfig((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def _v2(
    name: str, embed_dim: int, image: MCiConfig | ViTConfig, text: TextConfig, pixels: PixelConfig = ZERO_ONE
) -> ModelConfig:
    """MobileCLIP2 was trained in open_clip, whose image towers end in a projection with a bias."""
    return ModelConfig(name, embed_dim, replace(image, proj_bias=True), text, pixels=pixels)


_TABLE = (
    ModelConfig("mobileclip_s0", 512, MCI0, MCT),
    ModelConfig("mobileclip_s1", 512, MCI1, BASE),
    ModelConfig("mobileclip_s2", 512, MCI2, BASE),
    ModelConfig("mobileclip_b", 512, VIT_B, CAUSAL),  # the released "LT" is this one, trained longer
    _v2("mobileclip2_s0", 512, MCI0, BASE),
    _v2("mobileclip2_s2", 512, MCI2, BASE),
    _v2("mobileclip2_b", 512, timm_stem(VIT_B), CAUSAL),
    _v2("mobileclip2_s3", 768, MCI3, WIDE, OPENAI),
    _v2("mobileclip2_s4", 768, MCI4, WIDE, OPENAI),
    _v2("mobileclip2_l14", 768, VIT_L, WIDE, replace(OPENAI, interpolation="bicubic")),
    # The same design for two CPU cores: nano trains from nothing in minutes, pico is for experiments of many runs.
    ModelConfig(
        "mobileclip_nano",
        embed_dim=256,
        image=MCiConfig(widths=(16, 48, 96, 192), depths=(1, 2, 4, 1), image_size=64, layer_scale=0.1),
        text=TextConfig(width=192, layers=2, context_length=16, layer_scale=0.1),
    ),
    ModelConfig(
        "mobileclip_pico",
        embed_dim=192,
        image=MCiConfig(widths=(16, 32, 64, 128), depths=(1, 1, 2, 1), image_size=48, layer_scale=0.1),
        text=TextConfig(width=128, layers=1, context_length=12, layer_scale=0.1),
    ),
)
PRESETS: dict[str, ModelConfig] = {config.name: config for config in _TABLE}


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
        UserError: no preset has this name.
    """
    if name not in PRESETS:
        raise UserError(f"unknown model {name!r}; known: {', '.join(PRESETS)}")
    config = PRESETS[name]
    image, text = config.image, config.text
    if image_size is not None:
        image = replace(image, image_size=image_size)
    if context_length is not None:
        text = replace(text, context_length=context_length)
    if vocab is not None:
        text = replace(text, vocab_size=len(vocab))
    return replace(config, image=image, text=text, vocab=vocab)
