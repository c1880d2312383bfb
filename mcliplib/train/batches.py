"""Batches from decoded samples: a random crop of each picture, perhaps mirrored, and one of its captions.

Batch number `step` is a function of (samples, seed, step) alone, so that a resumed run sees what an uninterrupted one
would have seen, and no random state has to be saved.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.tokenizer import Tokenizer

KEYWORD_VARIANTS = 4
MAX_KEYWORDS = 4


class Batch(NamedTuple):
    """Pairs to train on: row i of both belongs together."""

    pixels: Tensor  # [B, 3, H, W] float32 in [0, 1], channels_last
    tokens: Tensor  # [B, T] int64


class PairBatches:
    """An endless, seeded sequence of training batches.

    Several threads may ask at once. (On a CPU the training thread does: with two cores a loader beside it slows the
    step by more than the batch takes.)

    Args:
        samples: decoded pairs.
        tokenizer: of the model that will be trained.
        image_size: pixels, height and width.
        batch_size: pairs in a batch; at most `len(samples)`.
        seed: of order, crops and captions.
        min_crop: smallest share of the area kept by RandomResizedCrop (aspect ratio 3/4 to 4/3).
        mirror: how often a crop is mirrored left to right.
        jitter: half-width of the random gain of each colour channel; a third of it is the random shift.
        keyword_captions: how often a caption carries keywords, where the sample has any.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        tokenizer: Tokenizer,
        *,
        image_size: int,
        batch_size: int,
        seed: int,
        min_crop: float = 0.5,
        mirror: float = 0.0,
        jitter: float = 0.0,
        keyword_captions: float = 0.5,
    ) -> None:
        check_batch_size(batch_size, len(samples))
        self.samples, self.image_size, self.batch_size, self.seed = samples, image_size, batch_size, seed
        self.min_crop, self.mirror, self.jitter = min_crop, mirror, jitter
        self.keyword_captions = keyword_captions
        rng = np.random.default_rng([seed, 0])
        variants = [caption_variants(sample, rng) for sample in samples]
        self._tokens = [tokenizer(texts) for texts in variants]

    def __call__(self, step: int) -> Batch:
        """The batch of one step."""
        rng = np.random.default_rng([self.seed, 1, step])
        rows = rows_of(step, len(self.samples), self.batch_size, self.seed)
        pixels = np.stack([self._crop(self.samples[row].image, rng) for row in rows])
        images = jitter_colours(as_pixels(pixels), rng, self.jitter)
        return Batch(images, torch.stack([self._caption(self._tokens[row], rng) for row in rows]))

    def _crop(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        crop = crop_of(image, self.image_size, rng, self.min_crop)
        return crop[:, ::-1] if rng.random() < self.mirror else crop

    def _caption(self, tokens: Tensor, rng: np.random.Generator) -> Tensor:
        if len(tokens) == 1 or rng.random() >= self.keyword_captions:
            return tokens[0]
        return tokens[rng.integers(1, len(tokens))]


def check_batch_size(batch_size: int, samples: int) -> None:
    """Raises a UserError where there are not enough samples for one batch."""
    if batch_size > samples:
        raise UserError(f"batch_size {batch_size} is more than the {samples} pairs there are")


def rows_of(step: int, samples: int, batch_size: int, seed: int) -> np.ndarray:
    """The samples of one batch, as indices.

    Every epoch is a new permutation; a last incomplete batch is dropped, as its pairs come again.
    """
    epoch, place = divmod(step, samples // batch_size)
    order = np.random.default_rng([seed, 2, epoch]).permutation(samples)
    return order[place * batch_size : (place + 1) * batch_size]


def as_pixels(views: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] as float32 [B, 3, H, W] in [0, 1], channels_last."""
    return torch.from_numpy(views).permute(0, 3, 1, 2).float().div_(255)


def crop_of(image: Image.Image, size: int, rng: np.random.Generator, min_area: float) -> np.ndarray:
    """A random crop as uint8 [size, size, 3]."""
    box = random_crop_box(image.size, rng, min_area)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def random_crop_box(
    size: tuple[int, int], rng: np.random.Generator, min_area: float
) -> tuple[float, float, float, float]:
    """A RandomResizedCrop window: (left, top, right, bottom) in pixels of a picture of size (width, height)."""
    width, height = size
    area = width * height * rng.uniform(min_area, 1.0)
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return left, top, left + w, top + h


def jitter_colours(images: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] with a random gain and shift of each channel, so that no colour is a giveaway."""
    if strength == 0:
        return images
    gain = torch.from_numpy(rng.uniform(1 - strength, 1 + strength, (len(images), 3, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-strength / 3, strength / 3, (len(images), 3, 1, 1))).float()
    return images.mul_(gain).add_(shift).clamp_(0, 1)


def caption_variants(sample: Sample, rng: np.random.Generator) -> list[str]:
    """The caption, then captions that carry some of the sample's keywords, in random order."""
    keywords = [word for word in sample.meta.get("keywords", []) if word.lower() != sample.caption.lower()]
    if not keywords:
        return [sample.caption]
    variants = []
    for _ in range(KEYWORD_VARIANTS):
        count = int(rng.integers(1, min(MAX_KEYWORDS, len(keywords)) + 1))
        words = [keywords[i] for i in rng.permutation(len(keywords))[:count]]
        variants.append(", ".join([sample.caption, *words] if rng.random() < 0.5 else words))
    return [sample.caption, *variants]
