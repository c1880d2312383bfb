"""Batches from decoded samples: plain pairs, or a reinforced set that fits in memory.

Batch number `step` is a function of (samples, seed, step) alone, so that a resumed run sees what an uninterrupted one
would have seen, and no random state has to be saved.

A plain pair is a random crop of its picture, perhaps mirrored, and one of its captions. A reinforced one is a stored
view of its picture, its real caption and one of the synthetic ones, and the teachers' embeddings of the three.
"""

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.images import MAX_PIXELS, Picture, PictureError, read_picture
from mcliplib.reinforce import augment
from mcliplib.reinforce.augment import PAPER, AugmentSettings
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.tokenizer import Tokenizer

log = logging.getLogger(__name__)
KEYWORD_VARIANTS = 4
MAX_KEYWORDS = 4
Keep = Literal["views", "images"]
_IMAGES_BYTES = 256_000_000  # of decoded pictures that are kept
_MOST_UNUSABLE = 0.1  # of a set's pictures, before training on the rest is refused
_LARGE = 1_000_000  # pixels; decoding takes longer than making all the views of a picture


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


def check_batch_size(batch_size: int, samples: int, what: str = "pairs") -> None:
    """Raises a UserError where there are not enough samples for one batch."""
    if batch_size > samples:
        raise UserError(f"batch_size {batch_size} is more than the {samples} {what} there are (--batch-size)")


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
    """A random crop (RandomResizedCrop) as uint8 [size, size, 3], drawn and made as those of a reinforced set."""
    settings = AugmentSettings(size=size, crop_scale=(min_area, 1.0), flip_probability=0.0, randaug_probability=0.0)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    return np.asarray(augment.replay(image, augment.sample(image.size, generator, settings), size, settings))


def side_for(image_size: int, min_area: float) -> int:
    """The shorter side, in pixels, at which even a picture's smallest random crop has twice the view's resolution."""
    return math.ceil(2 * image_size / math.sqrt(min_area * 3 / 4))


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


class ReinforcedBatch(NamedTuple):
    """Rows of all parts belong together; without synthetic captions, the last two are None."""

    pixels: Tensor  # [B, 3, H, W] float32 in [0, 1], channels_last
    tokens: Tensor  # [B, T] int64, of the real captions
    image_emb: Tensor  # [B, D] float32, the teachers' of these views
    text_emb: Tensor  # [B, D] float32, of the real captions
    synthetic_tokens: Tensor | None = None  # [B, T]
    synthetic_emb: Tensor | None = None  # [B, D]


class Views:
    """The augmented views of a set, made when they are first asked for; runs on the same set can share them.

    Stored views are few, so a small set can keep them all once they are made; batches then cost less than those of
    plain pairs, whose crops are always new. Of decoded pictures the latest 256 MB stay. A large one is decoded once:
    all its views are made at the first request.

    Args:
        samples: with images.
        image_size: pixels, height and width.
        settings: those the augmentations were drawn with.
        keep: in memory: "views" (each augmented picture, once it was made), or only the latest decoded "images".
        max_pixels: of a picture (`mcliplib.images.read_picture`).
    """

    def __init__(
        self,
        samples: Sequence[ReinforcedSample],
        image_size: int,
        settings: AugmentSettings = PAPER,
        keep: Keep = "views",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.samples, self.image_size, self.settings, self.keep = samples, image_size, settings, keep
        self.max_pixels = max_pixels
        self._images: OrderedDict[int, Picture] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()  # several threads make batches
        shape = (len(samples), len(samples[0].augmentations)) if keep == "views" else (0, 0)
        self._views = np.empty((*shape, image_size, image_size, 3), np.uint8)  # takes memory where it is written
        self._made = np.zeros(shape, bool)

    def __call__(self, row: int, view: int) -> np.ndarray:
        """One augmented picture, uint8 [H, W, 3]."""
        if self.keep == "images":
            return self._make(row, view, self._picture(row))
        if not self._made[row, view]:
            picture = self._picture(row)
            large = picture.image.width * picture.image.height > _LARGE
            for one in range(self._made.shape[1]) if large else (view,):
                self._views[row, one], self._made[row, one] = self._make(row, one, picture), True
        return self._views[row, view]

    def _make(self, row: int, view: int, picture: Picture) -> np.ndarray:
        return view_of(self.samples[row], view, self.image_size, self.settings, picture)

    def _picture(self, row: int) -> Picture:
        with self._lock:
            if row in self._images:
                self._images.move_to_end(row)
                return self._images[row]
        picture = picture_of(self.samples[row], self.max_pixels)
        with self._lock:
            if row not in self._images:
                self._images[row] = picture
                self._bytes += _bytes_of(picture)
            while self._bytes > _IMAGES_BYTES:
                self._bytes -= _bytes_of(self._images.popitem(last=False)[1])
        return picture


class ReinforcedBatches:
    """An endless, seeded sequence of reinforced batches.

    Args:
        samples: with images and real captions, and equal numbers of views and of synthetic captions.
        tokenizer: of the model that will be trained.
        image_size: pixels, height and width.
        batch_size: pairs in a batch; at most `len(samples)`.
        seed: of order, views and captions.
        settings: those the augmentations were drawn with.
        keep: see `Views`.
        views: of the same samples, instead of new ones; they may hold more views of each than the samples name.

    Raises:
        UserError: too few samples, or samples that lack something or differ in their counts.
    """

    def __init__(
        self,
        samples: Sequence[ReinforcedSample],
        tokenizer: Tokenizer,
        *,
        image_size: int,
        batch_size: int,
        seed: int,
        settings: AugmentSettings = PAPER,
        keep: Keep = "views",
        views: Views | None = None,
    ) -> None:
        check_batch_size(batch_size, len(samples))
        _check_alike(samples)
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.unusable: dict[int, str] = {}  # row -> why its picture cannot be used
        self.view = Views(samples, image_size, settings, keep) if views is None else views
        self._tokens = torch.stack([tokenizer([str(one.caption), *one.synthetic_captions]) for one in samples])
        self._image_emb = torch.stack([one.image_emb for one in samples])
        self._text_emb = torch.stack([one.text_emb for one in samples])

    def __call__(self, step: int) -> ReinforcedBatch:
        """The batch of one step."""
        rng = np.random.default_rng([self.seed, 1, step])
        rows = rows_of(step, len(self.samples), self.batch_size, self.seed)
        views = rng.integers(self._image_emb.shape[1], size=len(rows))
        chosen = [self._usable(row, view, step) for row, view in zip(rows.tolist(), views.tolist(), strict=True)]
        rows = np.array([row for row, _ in chosen])
        pixels = np.stack([made for _, made in chosen])
        real = ReinforcedBatch(
            as_pixels(pixels), self._tokens[rows, 0], self._image_emb[rows, views], self._text_emb[rows, 0]
        )
        if self._tokens.shape[1] == 1:
            return real
        texts = rng.integers(1, self._tokens.shape[1], size=len(rows))
        return real._replace(synthetic_tokens=self._tokens[rows, texts], synthetic_emb=self._text_emb[rows, texts])

    def _usable(self, row: int, view: int, step: int) -> tuple[int, np.ndarray]:
        """A row and its view; where its picture cannot be decoded, those of another row, drawn for this step."""
        rng: np.random.Generator | None = None
        while True:
            try:
                return row, self.view(row, view)
            except PictureError as error:
                if row not in self.unusable:
                    log.warning("left out: %s", error)
                    self.unusable[row] = str(error)
                bad, there = len(self.unusable), len(self.samples)
                if bad > _MOST_UNUSABLE * there:
                    raise UserError(f"{bad} of {there} pictures cannot be used: {error}") from error
                rng = rng or np.random.default_rng([self.seed, 3, step, row])
                row = int(rng.integers(there))


def _bytes_of(picture: Picture) -> int:
    return 3 * picture.image.width * picture.image.height


def picture_of(sample: ReinforcedSample, max_pixels: int = MAX_PIXELS) -> Picture:
    """The decoded picture, RGB, turned as it was when the sample's augmentations were drawn.

    Raises:
        PictureError: the sample has none, or a damaged or too large one; names the key.
    """
    try:
        return read_picture(sample.image or b"", max_pixels=max_pixels, upright=sample.upright)
    except PictureError as error:
        raise PictureError(error.reason, f"{sample.key}.{sample.image_extension}: {error}") from error


def view_of(
    sample: ReinforcedSample, view: int, size: int, settings: AugmentSettings, picture: Picture | None = None
) -> np.ndarray:
    """One of the stored augmented views, uint8 [size, size, 3]; `picture` is the decoded one, where it is at hand."""
    image, original = picture_of(sample) if picture is None else picture
    drawn = sample.augmentations[view]
    return np.asarray(augment.replay(image, drawn, size, settings, key=sample.key, original=original))


def _check_alike(samples: Sequence[ReinforcedSample]) -> None:
    first = samples[0]
    for one in samples:
        if one.image is None or one.caption is None:
            raise UserError(f"{one.key}: has no {'image' if one.image is None else 'caption'}; join the shards that do")
        if (one.image_emb.shape, one.text_emb.shape) != (first.image_emb.shape, first.text_emb.shape):
            raise UserError(
                f"{one.key}: {list(one.image_emb.shape)} image and {list(one.text_emb.shape)} text embeddings, "
                f"{first.key} has {list(first.image_emb.shape)} and {list(first.text_emb.shape)}"
            )
