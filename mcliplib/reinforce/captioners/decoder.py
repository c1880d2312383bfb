"""The captioner that can be had here: two small decoders, each asked about what the other one was trained on.

A decoder is a causal transformer that reads a picture's features as its first tokens. A captioner that has seen a
picture's own caption repeats it. So the training pairs are split in two by what they are about, and a picture is always
captioned by the decoder of the other half. The weights take a byte each: matrices in int8 with one step for each row,
the rest in float16.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from mcliplib.checkpoints.files import read_checkpoint, weights_sha256
from mcliplib.checkpoints.int8 import from_int8
from mcliplib.data import concept_of, data_root, list_datasets, load_samples
from mcliplib.errors import UserError
from mcliplib.files import fitted, read_json
from mcliplib.layers import TransformerLayer
from mcliplib.preprocess import preprocess_image
from mcliplib.reinforce.captioners.sampling import sample_texts
from mcliplib.reinforce.store import generator_of
from mcliplib.reinforce.teachers.efficientnet import LiteFeatures
from mcliplib.reinforce.teachers.locked import IMAGE_SIZE
from mcliplib.reinforce.teachers.minilm import MiniLM
from mcliplib.tokenizer import Tokenizer

VARIANT = "lite0"
FOLDS = 2
TOP_P = 0.9


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder's settings.

    Attributes:
        features: width of the picture's features.
        vocab_size: tokens it can say.
        width: channels of a token, a multiple of 32 (the attention's head width).
        layers: transformer layers.
        prefix: tokens that the picture becomes.
        context_length: tokens of a caption, start and end included.
        dropout: of the features and the embeddings, in training.
    """

    features: int
    vocab_size: int
    width: int = 160
    layers: int = 3
    prefix: int = 4
    context_length: int = 24
    dropout: float = 0.2


class CaptionDecoder(nn.Module):
    """Picture features and the tokens so far to the next token's logits.

    Args:
        config: widths and depths.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.norm_features = nn.LayerNorm(config.features)
        self.to_prefix = nn.Linear(config.features, config.prefix * config.width)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.zeros(config.prefix + config.context_length, config.width))
        layers = (TransformerLayer(config.width, head_dim=32, mlp_ratio=4.0, causal=True) for _ in range(config.layers))
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, features: Float[Tensor, "n f"], tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n t v"]:
        """Logits of the token after each of `tokens`; the output layer is the embedding (1608.05859)."""
        seen = self.to_prefix(self.dropout(self.norm_features(features)))
        prefix = seen.unflatten(1, (self.config.prefix, self.config.width))
        x = torch.cat([prefix, self.embedding(tokens)], dim=1)
        x = self.layers(self.dropout(x + self.positions[: x.shape[1]]))
        return self.norm(x[:, self.config.prefix :]) @ self.embedding.weight.T


class DecoderCaptioner:
    """Captions by two small decoders over EfficientNet-Lite0's features.

    Args:
        folder: with `fold0.safetensors` and `fold1.safetensors`; `data/captioner` unless given.
        concepts: key -> caption of the samples that the decoders were trained on, which decides their half; other keys
            are hashed themselves.
        top_p: probability of the tokens that are drawn from.

    Raises:
        UserError: the extra `teachers` is not installed, or there are no trained decoders.
    """

    def __init__(
        self, folder: Path | None = None, *, concepts: dict[str, str] | None = None, top_p: float = TOP_P
    ) -> None:
        folder = folder or data_root() / "captioner"
        loaded = [_load(folder / f"fold{fold}.safetensors") for fold in range(FOLDS)]
        self._decoders, self._tokenizer = [decoder for decoder, _ in loaded], loaded[0][1]
        self._features = LiteFeatures(VARIANT, MiniLM())
        self._concepts = training_concepts() if concepts is None else concepts
        self.top_p = top_p
        self.name = "decoder"
        self.identity = {
            **self._features.tower.identity(),
            **{f"fold{fold}": weights_sha256(decoder.state_dict()) for fold, decoder in enumerate(self._decoders)},
        }

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], keys: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """See `Captioner.caption`; pictures are looked at one by one, so that no batch changes a caption."""
        return [self._captions(image, key, count, seed) for image, key in zip(images, keys, strict=True)]

    def _captions(self, image: Image.Image, key: str, count: int, seed: int) -> list[str]:
        features = self._features(preprocess_image(image, IMAGE_SIZE)[None]).features.expand(count, -1)
        decoder = self._decoders[fold_of(self._concepts.get(key, key))]
        start, end = special_tokens(self._tokenizer)
        rows = sample_texts(
            lambda tokens: decoder(features, tokens)[:, -1],
            count,
            start=start,
            end=end,
            longest=decoder.config.context_length,
            top_p=self.top_p,
            generator=generator_of("captions", seed, key),
        )
        return [self._tokenizer.decode(row) for row in rows]


def training_concepts() -> dict[str, str]:
    """Key -> caption of every training pair."""
    return {sample.key: sample.caption for sample in load_samples(list_datasets("train"))}


def fold_of(concept: str) -> int:
    """The half that a pair belongs to, by a stable hash of what it is about.

    Args:
        concept: the caption, so that the same thing drawn in another style is in the same half.
    """
    return hashlib.sha256(concept_of(concept).encode()).digest()[0] % FOLDS


def special_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """Start and end of text."""
    row = tokenizer([""])[0].tolist()
    return row[0], row[1]


def _load(path: Path) -> tuple[CaptionDecoder, Tokenizer]:
    try:
        found = read_checkpoint(path)
        config, vocab = (read_json(found.header[name], name) for name in ("decoder", "vocab"))
        decoder = CaptionDecoder(fitted(config, DecoderConfig, "decoder"))
        decoder.load_state_dict(from_int8(found.tensors))
    except (UserError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: no trained decoder ({error}); `mcliplib captioner train` makes it") from error
    return decoder.eval().requires_grad_(False), Tokenizer(decoder.config.context_length, vocab)
