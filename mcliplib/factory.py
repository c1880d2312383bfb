"""The functions most people start from: a model, its tokenizer, its preprocessing, by name.

The table of presets is a module of its own, `mcliplib.presets`, as reading a checkpoint needs it to tell which model a
file holds: with the table here, this module and `mcliplib.checkpoints` would import each other.
"""

from dataclasses import replace
from pathlib import Path

from mcliplib.checkpoints import load_model
from mcliplib.errors import UserError
from mcliplib.model import MobileCLIP, build
from mcliplib.preprocess import Preprocess
from mcliplib.presets import get_config
from mcliplib.tokenizer import Tokenizer


def create_model(
    name: str | None = None,
    pretrained: str | Path | None = None,
    *,
    image_size: int | None = None,
    context_length: int | None = None,
    vocab: tuple[int, ...] | None = None,
) -> MobileCLIP:
    """A model by name, in eval mode.

    Args:
        name: one of `list_models()`; may be left out where `pretrained` says what it holds.
        pretrained: "student", a small trained model that is a part of this package; a checkpoint's path (a released
            `mobileclip_*.pt`, open_clip's, or ours: `load_model` tells them apart), a training run's folder, or
            `hf-hub:apple/MobileCLIP-S0`. Ours bring their own context length and vocabulary. None: random weights
            (seed them with `torch.manual_seed`).
        image_size: pixels the preprocessing makes; the preset's if None.
        context_length: tokens per text; the preset's if None.
        vocab: ascending CLIP ids to restrict the embedding to (`restrict_vocab`); all 49,408 if None.

    Raises:
        ValueError: neither a name nor weights.
        UserError: no preset has this name, or `pretrained` is missing, out of reach, broken, or holds another model,
            context length or vocabulary.
    """
    config = None
    if name is not None:
        config = get_config(name, image_size=image_size, context_length=context_length, vocab=vocab)
    if pretrained is None:
        if config is None:
            raise ValueError("name a model, or weights in `pretrained`")
        return build(config).eval()
    model = load_model(pretrained, name, config)
    saved = model.config
    if name not in (None, saved.name):
        raise UserError(f"{pretrained}: holds {saved.name}, not {name}")
    if context_length not in (None, saved.text.context_length) or (vocab is not None and vocab != saved.vocab):
        raise UserError(f"{pretrained}: has {saved.text.context_length} tokens and a vocabulary of its own; "
                        f"leave context_length and vocab out")  # fmt: skip
    if image_size is not None:
        model.config = replace(saved, image=replace(saved.image, image_size=image_size))
    return model


def get_tokenizer(model: str | MobileCLIP) -> Tokenizer:
    """The tokenizer of a preset by name, or of a model (with its context length and vocabulary)."""
    config = get_config(model) if isinstance(model, str) else model.config
    return Tokenizer(config.text.context_length, config.vocab)


def get_preprocess(model: str | MobileCLIP) -> Preprocess:
    """PIL image or path -> [3, size, size], for a preset or a model: in [0, 1], normalised where the model wants it."""
    config = get_config(model) if isinstance(model, str) else model.config
    return Preprocess(config.image.image_size, config.pixels)
