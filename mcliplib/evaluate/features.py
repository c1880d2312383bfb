"""Pictures and texts to features, in batches: by a model here, or by anything else that maps both into one space."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mcliplib.checkpoints.files import weights_sha256
from mcliplib.checkpoints.formats import config_to_json
from mcliplib.errors import UserError
from mcliplib.factory import get_preprocess, get_tokenizer
from mcliplib.files import replacing, writing
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
    def identity(self) -> dict[str, str]:
        """The settings and a hash of the weights: other ones give other features."""
        return {"config": config_to_json(self.model.config), "sha256": weights_sha256(self.model.state_dict())}

    @property
    def _device(self) -> torch.device:
        return self.model.logit_scale.device


def image_features(model: MobileCLIP, images: Sequence[Image.Image]) -> Tensor:
    """Normalised features [N, D] of PIL images, preprocessed for the model."""
    return ModelEncoder(model).encode_images(images)


def text_features(model: MobileCLIP, texts: Sequence[str]) -> Tensor:
    """Normalised features [M, D] of texts, tokenized for the model."""
    return ModelEncoder(model).encode_texts(texts)


class FeatureCache:
    """Features on disk, so that a second score of the same model and set costs no encoding.

    Args:
        folder: made where it is missing; holds safetensors files. A damaged one counts as missing.
        most_bytes: the files used longest ago go when there is more.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes

    def path(self, encoder: Encoder, *what: Any) -> Path:
        """The file of an encoder's features of something, named by a hash of both.

        Raises:
            UserError: the encoder does not say which weights it has (a member `identity`).
        """
        identity = getattr(encoder, "identity", None)
        if identity is None:
            raise UserError(
                f"{type(encoder).__name__} has no `identity`, so its features cannot be cached; leave it out"
            )
        name = hashlib.sha256(json.dumps([identity, what], sort_keys=True).encode()).hexdigest()
        return self.folder / f"{name}.safetensors"

    def get(self, path: Path) -> dict[str, Tensor] | None:
        """The tensors in a file; None where there is none."""
        with contextlib.suppress(Exception):  # safetensors raises its own kinds
            tensors = load_file(path)
            path.touch()
            return tensors
        return None

    def put(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Write a file, and remove the oldest ones above the limit."""
        with replacing(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        with writing(self.folder):
            files = sorted(self.folder.glob("*.safetensors"), key=lambda one: one.stat().st_mtime, reverse=True)
            total = 0
            for one in files:
                total += one.stat().st_size
                if total > self.most_bytes and one != path:
                    one.unlink(missing_ok=True)
