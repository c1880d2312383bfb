"""An export in its own runtime, as an `Encoder`: what can be measured of a model can be measured of the artefact."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcliplib.errors import UserError
from mcliplib.export.towers import TowerName
from mcliplib.export.verify import Runtime
from mcliplib.images import as_rgb
from mcliplib.model import ModelConfig
from mcliplib.preprocess import Preprocess
from mcliplib.tokenizer import Tokenizer

_BATCH = 16


class ExportedEncoder:
    """Towers as functions of arrays, with the model's preprocessing and tokenizer.

    Args:
        config: of the model.
        runtimes: tower -> its inputs, float32 pixels [B, 3, H, W] or int64 tokens [B, T] -> features [B, D].
        bytes_in: whether the image tower takes pictures as bytes, [B, height, width, 3].
    """

    def __init__(self, config: ModelConfig, runtimes: Mapping[TowerName, Runtime], *, bytes_in: bool = False) -> None:
        self._runtimes, self._bytes_in = runtimes, bytes_in
        self._preprocess = Preprocess(config.image.image_size, config.pixels)
        self._tokenizer = Tokenizer(config.text.context_length, config.vocab)

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Normalised features [N, D], float32.

        Raises:
            UserError: there is no image tower.
        """
        if self._bytes_in:
            return self._features("image", [np.asarray(as_rgb(image))[None] for image in images])
        parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return self._features("image", [torch.stack([self._preprocess(one) for one in part]).numpy() for part in parts])

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Normalised features [M, D], float32.

        Raises:
            UserError: there is no text tower.
        """
        return self._features("text", [part.numpy() for part in self._tokenizer(texts).split(_BATCH)])

    def _features(self, tower: TowerName, batches: Sequence[np.ndarray]) -> Tensor:
        if tower not in self._runtimes:
            raise UserError(f"this export has no {tower} tower; export it with --tower both")
        run = self._runtimes[tower]
        return torch.from_numpy(np.concatenate([np.asarray(run(batch)) for batch in batches])).float()
