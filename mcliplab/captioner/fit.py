"""From the training sets to trained caption decoders."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from mcliplab.captioner.training import DecoderData, DecoderSettings, halves, train_decoder
from mcliplab.teachers.fit import training_views
from mcliplib.checkpoints.files import write_safetensors
from mcliplib.checkpoints.int8 import to_int8
from mcliplib.data import Sample, data_root, list_datasets, load_samples
from mcliplib.reinforce.captioners.decoder import VARIANT, CaptionDecoder, DecoderConfig, special_tokens
from mcliplib.reinforce.teachers.efficientnet import IMAGE_WIDTH, LiteFeatures
from mcliplib.reinforce.teachers.minilm import MiniLM
from mcliplib.tokenizer import Tokenizer, restrict_vocab


def train_captioner(
    output: Path | None = None,
    *,
    settings: DecoderSettings = DecoderSettings(),  # noqa: B008 (frozen)
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Train both decoders on the training sets and write one file each.

    Args:
        output: folder; `data/captioner` unless given.
        settings: of the training.
        progress: told what is being done.
    """
    samples = load_samples(list_datasets("train"))
    texts = [_ways_to_say(sample) for sample in samples]
    tokenizer = Tokenizer(DecoderConfig(0, 0).context_length, restrict_vocab(way for ways in texts for way in ways))
    views = training_views(LiteFeatures(VARIANT, MiniLM()), samples, progress=progress)
    tokens = torch.stack([tokenizer(ways) for ways in texts])
    data = DecoderData(views, tokens, special_tokens(tokenizer)[1])
    config = DecoderConfig(IMAGE_WIDTH, tokenizer.vocab_size)
    paths = []
    for fold, index in enumerate(halves([sample.caption for sample in samples])):

        def report(epoch: int, loss: float, fold: int = fold) -> None:
            progress(f"fold {fold}, epoch {epoch}: {loss:.3f} nats per token")

        decoder = train_decoder(data.subset(index), config, settings, report)
        paths.append((output or data_root() / "captioner") / f"fold{fold}.safetensors")
        save_decoder(decoder, tokenizer, paths[-1])
    return paths


def _ways_to_say(sample: Sample) -> list[str]:
    """The caption twice, and twice with a keyword: what the decoder learns to say."""
    caption = sample.caption.rstrip(".")
    words = [word for word in sample.meta.get("keywords", []) if word.lower() not in caption.lower()]
    said = [f"{caption}, {word}" for word in words[:2]]
    return [caption, caption, *said, caption, caption][:4]


def save_decoder(decoder: CaptionDecoder, tokenizer: Tokenizer, path: Path) -> None:
    """Write a decoder in int8, with its settings and vocabulary in the file's header."""
    header = {"decoder": json.dumps(asdict(decoder.config)), "vocab": json.dumps(tokenizer.vocab)}
    write_safetensors(to_int8(decoder.state_dict()), path, header)
