"""Batches from a reinforced set that fits in memory: one stored view of each picture, its real caption and one of the
synthetic ones, and what the teachers said of the three.

As in `PairBatches`, batch number `step` is a function of (samples, seed, step) alone.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcliplib.data import decode_image
from mcliplib.errors import UserError
from mcliplib.reinforce import augment
from mcliplib.reinforce.format import ReinforcedSample
from mcliplib.reinforce.params import PAPER, AugmentSettings
from mcliplib.tokenizer import Tokenizer
from mcliplib.train.batches import as_pixels, check_batch_size, rows_of

Keep = Literal["views", "images", "bytes"]


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
    plain pairs, whose crops are always new.

    Args:
        samples: with images.
        image_size: pixels, height and width.
        settings: those the augmentations were drawn with.
        keep: in memory: "views" (each augmented picture, once it was made), "images" (decoded) or "bytes".
    """

    def __init__(
        self,
        samples: Sequence[ReinforcedSample],
        image_size: int,
        settings: AugmentSettings = PAPER,
        keep: Keep = "views",
    ) -> None:
        self.samples, self.image_size, self.settings, self.keep = samples, image_size, settings, keep
        self._images: dict[int, Image.Image] = {}
        shape = (len(samples), len(samples[0].augmentations)) if keep == "views" else (0, 0)
        self._views = np.empty((*shape, image_size, image_size, 3), np.uint8)  # takes memory where it is written
        self._made = np.zeros(shape, bool)

    def __call__(self, row: int, view: int) -> np.ndarray:
        """One augmented picture, uint8 [H, W, 3]."""
        if self.keep == "views" and self._made[row, view]:
            return self._views[row, view]
        made = view_of(self.samples[row], view, self.image_size, self.settings, self._image(row))
        if self.keep == "views":
            self._views[row, view], self._made[row, view] = made, True
        return made

    def _image(self, row: int) -> Image.Image:
        if row in self._images:
            return self._images[row]
        image = picture_of(self.samples[row])
        if self.keep != "bytes":
            self._images[row] = image
        return image


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
        self.view = Views(samples, image_size, settings, keep) if views is None else views
        self._tokens = torch.stack([tokenizer([str(one.caption), *one.synthetic_captions]) for one in samples])
        self._image_emb = torch.stack([one.image_emb for one in samples])
        self._text_emb = torch.stack([one.text_emb for one in samples])

    def __call__(self, step: int) -> ReinforcedBatch:
        """The batch of one step."""
        rng = np.random.default_rng([self.seed, 1, step])
        rows = rows_of(step, len(self.samples), self.batch_size, self.seed)
        views = rng.integers(self._image_emb.shape[1], size=len(rows))
        chosen = zip(rows.tolist(), views.tolist(), strict=True)
        pixels = np.stack([self.view(row, view) for row, view in chosen])
        real = ReinforcedBatch(
            as_pixels(pixels), self._tokens[rows, 0], self._image_emb[rows, views], self._text_emb[rows, 0]
        )
        if self._tokens.shape[1] == 1:
            return real
        texts = rng.integers(1, self._tokens.shape[1], size=len(rows))
        return real._replace(synthetic_tokens=self._tokens[rows, texts], synthetic_emb=self._text_emb[rows, texts])


def picture_of(sample: ReinforcedSample) -> Image.Image:
    """The decoded picture, RGB.

    Raises:
        UserError: the sample has none, or a damaged one; names the key.
    """
    try:
        return decode_image(sample.image or b"")
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UserError(f"{sample.key}.{sample.image_extension}: not a whole image ({error})") from error


def view_of(
    sample: ReinforcedSample, view: int, size: int, settings: AugmentSettings, image: Image.Image | None = None
) -> np.ndarray:
    """One of the stored augmented views, uint8 [size, size, 3]; `image` is the decoded picture, where it is at hand."""
    picture = picture_of(sample) if image is None else image
    return np.asarray(augment.replay(picture, sample.augmentations[view], size, settings, key=sample.key))


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
