"""Pictures and texts to features, in batches: by a model here, or by anything else that maps both into one space."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from mcliplib.factory import get_preprocess, get_tokenizer
from mcliplib.model import MobileCLIP

BATCH = 128


@runtime_checkable
class Encoder(Protocol):
    """A model or teacher that encodes pictures and texts to normalised features."""

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """[N, D]."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """[M, D]."""


class ModelEncoder:
    """A model with its own preprocessing and tokenizer, as an `Encoder`.

    Args:
        model: in eval mode, on any device.
    """

    def __init__(self, model: MobileCLIP) -> None:
        self.model = model
        self._preprocess, self._tokenizer = get_preprocess(model), get_tokenizer(model)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Normalised features [N, D], float32, on the CPU."""
        parts = []
        for start in range(0, len(images), BATCH):
            pixels = torch.stack([self._preprocess(image) for image in images[start : start + BATCH]])
            parts.append(self.model.encode_image(pixels.to(self._device), normalize=True))
        return torch.cat(parts).float().cpu()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Normalised features [M, D], float32, on the CPU."""
        tokens = self._tokenizer(texts).split(BATCH)
        parts = [self.model.encode_text(part.to(self._device), normalize=True) for part in tokens]
        return torch.cat(parts).float().cpu()

    @property
    def _device(self) -> torch.device:
        return self.model.logit_scale.device


def image_features(model: MobileCLIP, images: Sequence[Image.Image]) -> Tensor:
    """Normalised features [N, D] of PIL images, preprocessed for the model."""
    return ModelEncoder(model).encode_images(images)


def text_features(model: MobileCLIP, texts: Sequence[str]) -> Tensor:
    """Normalised features [M, D] of texts, tokenized for the model."""
    return ModelEncoder(model).encode_texts(texts)
