"""A locked teacher (LiT, 2111.07991): pretrained towers that are not touched, and small heads trained on our pairs."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mcliplib.data import data_root
from mcliplib.errors import UserError
from mcliplib.preprocess import preprocess_image
from mcliplib.reinforce.teachers.batching import in_batches
from mcliplib.reinforce.teachers.conse import LiteFeatures
from mcliplib.reinforce.teachers.fingerprint import weights_sha256
from mcliplib.reinforce.teachers.heads import KEPT, Heads, load_heads
from mcliplib.reinforce.teachers.minilm import WIDTH, MiniLM

VARIANTS = ("lite0", "lite2")
IMAGE_SIZE = 160  # pixels; twice the side of most of our pictures, at half the cost of the towers' own 224 and 260


class LockedTeacher:
    """EfficientNet-Lite and MiniLM, joined by trained heads.

    Args:
        variant: "lite0" or "lite2".
        device: where it runs.
        heads: heads, or a file of them; the shipped ones, `data/teachers/VARIANT.safetensors`, unless given. Untrained
            heads make the ConSE baseline.
        text: a MiniLM to share between teachers; loaded unless given.
        name: for manifests; "lit-VARIANT" unless given.

    Raises:
        UserError: the extra `teachers` is not installed, or there are no heads, or they are of the other variant.
    """

    dim = WIDTH
    image_size = IMAGE_SIZE

    def __init__(
        self,
        variant: str = "lite0",
        device: str | torch.device = "cpu",
        heads: Heads | str | os.PathLike[str] | None = None,
        text: MiniLM | None = None,
        name: str | None = None,
    ) -> None:
        self.name, self.device = name or f"lit-{variant}", torch.device(device)
        if not isinstance(heads, Heads):
            path = heads_path(variant) if heads is None else Path(heads)
            heads, about = load_heads(path)
            if (made_for := about.get("variant", variant)) != variant:
                raise UserError(f"{path}: heads of {made_for}, not of {variant}")
        else:
            about = {}
        self.heads = heads.eval().to(self.device)
        self.text = (text or MiniLM()).to(self.device)
        self.features = LiteFeatures(variant, self.text).to(self.device)
        self.identity = {
            **self.features.tower.identity(),
            **self.text.identity(),
            "heads_sha256": weights_sha256(self.heads),
            "image_size": str(IMAGE_SIZE),
            "kept": str(KEPT),
            **{f"heads_{name}": value for name, value in about.items()},
        }

    @torch.inference_mode()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 384"]:
        """Pixels in [0, 1] to normalised features, float32, on the CPU."""
        return self.heads.recall(*self.features(pixels.to(self.device))).float().cpu()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m 384"]:
        """Texts to normalised features, float32, on the CPU."""
        return self.heads.encode_text(self.text(texts)).float().cpu()

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n 384"]:
        """Pictures of any size, shorter side resized and centre cropped, to normalised features."""
        return in_batches(self.encode_pixels, images, lambda image: preprocess_image(image, IMAGE_SIZE), self.dim)


def heads_path(variant: str) -> Path:
    """Where the shipped heads are."""
    return data_root() / "teachers" / f"{variant}.safetensors"
