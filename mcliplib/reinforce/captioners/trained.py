"""The captioner that can be had here: two decoders, each asked about what the other one was trained on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from mcliplib.checkpoints.files import read, write_safetensors
from mcliplib.checkpoints.int8 import from_int8, to_int8
from mcliplib.data import Sample, data_root, list_datasets, load_samples
from mcliplib.errors import UserError
from mcliplib.preprocess import preprocess_image
from mcliplib.reinforce.captioners.decoder import CaptionDecoder, DecoderConfig
from mcliplib.reinforce.captioners.sampling import say
from mcliplib.reinforce.captioners.training import FOLDS, DecoderData, DecoderSettings, fold_of, halves, train_decoder
from mcliplib.reinforce.seeds import generator_of
from mcliplib.reinforce.teachers.conse import IMAGE_WIDTH, LiteFeatures
from mcliplib.reinforce.teachers.fingerprint import weights_sha256
from mcliplib.reinforce.teachers.fit import training_views
from mcliplib.reinforce.teachers.locked import IMAGE_SIZE
from mcliplib.reinforce.teachers.minilm import MiniLM
from mcliplib.tokenizer import Tokenizer, restrict_vocab

VARIANT = "lite0"
TOP_P = 0.9


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
            **{f"fold{fold}": weights_sha256(decoder) for fold, decoder in enumerate(self._decoders)},
        }

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], keys: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """See `Captioner.caption`; pictures are looked at one by one, so that no batch changes a caption."""
        return [self._captions(image, key, count, seed) for image, key in zip(images, keys, strict=True)]

    def _captions(self, image: Image.Image, key: str, count: int, seed: int) -> list[str]:
        features = self._features(preprocess_image(image, IMAGE_SIZE)[None]).features.expand(count, -1)
        decoder = self._decoders[fold_of(self._concepts.get(key, key))]
        start, end = special_tokens(self._tokenizer)
        rows = say(
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

        def tell(epoch: int, loss: float, fold: int = fold) -> None:
            progress(f"fold {fold}, epoch {epoch}: {loss:.3f} nats per token")

        decoder = train_decoder(data.subset(index), config, settings, tell)
        paths.append((output or data_root() / "captioner") / f"fold{fold}.safetensors")
        _save(decoder, tokenizer, paths[-1])
    return paths


def special_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """Start and end of text."""
    row = tokenizer([""])[0].tolist()
    return row[0], row[1]


def _ways_to_say(sample: Sample) -> list[str]:
    """The caption twice, and twice with a keyword: what the decoder learns to say."""
    caption = sample.caption.rstrip(".")
    words = [word for word in sample.meta.get("keywords", []) if word.lower() not in caption.lower()]
    said = [f"{caption}, {word}" for word in words[:2]]
    return [caption, caption, *said, caption, caption][:4]


def _save(decoder: CaptionDecoder, tokenizer: Tokenizer, path: Path) -> None:
    header = {"decoder": json.dumps(asdict(decoder.config)), "vocab": json.dumps(tokenizer.vocab)}
    write_safetensors(to_int8(decoder.state_dict()), path, header)


def _load(path: Path) -> tuple[CaptionDecoder, Tokenizer]:
    try:
        found = read(path)
        config, vocab = (json.loads(found.header[name]) for name in ("decoder", "vocab"))
        decoder = CaptionDecoder(DecoderConfig(**config))
        decoder.load_state_dict(from_int8(found.tensors))
    except (UserError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: no trained decoder ({error}); `mcliplib captioner train` makes it") from error
    return decoder.eval().requires_grad_(False), Tokenizer(decoder.config.context_length, vocab)
