"""MobileCLIP: two towers, one space, one learned temperature."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mcliplib.image_encoder import MCi, MCiConfig
from mcliplib.text_encoder import TextConfig, TextEncoder
from mcliplib.vit import ViT, ViTConfig

MIN_PIXELS = 32  # the image tower halves five times
MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class PixelConfig:
    """How a picture becomes pixels.

    Attributes:
        mean: subtracted from each channel, in [0, 1].
        std: divides each channel afterwards.
        interpolation: "bilinear" or "bicubic", when the shorter side is resized.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class ModelConfig:
    """A whole model's settings.

    Attributes:
        name: the preset it comes from.
        embed_dim: width of the shared feature space.
        image: the image tower.
        text: the text tower.
        vocab: CLIP token ids in use, ascending, where the vocabulary is restricted (see `tokenizer`); else None.
        pixels: what the preprocessing does besides resizing.
    """

    name: str
    embed_dim: int
    image: MCiConfig | ViTConfig
    text: TextConfig
    vocab: tuple[int, ...] | None = None
    pixels: PixelConfig = PixelConfig()


class Features(NamedTuple):
    """Normalised features of a batch, and the temperature to compare them with."""

    image: Tensor  # [B, D]
    text: Tensor  # [B, D]
    logit_scale: Tensor  # scalar, at most 100


class MobileCLIP(nn.Module):
    """An image tower and a text tower that map into one space.

    Receives built towers, so that each is testable (and replaceable) alone; `create_model` builds them.

    Args:
        config: the settings that the towers were built from; kept for tokenizer, preprocessing and checkpoints.
        image_encoder: pixels [B, 3, H, W] -> [B, D].
        text_encoder: tokens [B, T] -> [B, D].
    """

    def __init__(self, config: ModelConfig, image_encoder: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, exp(logit_scale), at most 100 as in CLIP."""
        return self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        """Image features.

        Args:
            pixels: [B, 3, H, W], floating point as `get_preprocess` makes them (in [0, 1] for most models), height
                and width at least 32.
            normalize: whether to scale each feature to length 1.

        Returns:
            [B, embed_dim].

        Raises:
            ValueError: the tensor is not such a batch.
        """
        _check_pixels(pixels)
        features = self.image_encoder(pixels)
        return nn.functional.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Text features.

        Args:
            tokens: [B, context_length] integer ids from this model's tokenizer.
            normalize: whether to scale each feature to length 1.

        Returns:
            [B, embed_dim].

        Raises:
            ValueError: the tensor is not such a batch, or holds an id outside the vocabulary.
        """
        self._check_tokens(tokens)
        try:
            features = self.text_encoder(tokens)
        except IndexError as error:
            size = self.config.text.vocab_size
            raise ValueError(f"tokens must be ids below {size}; use mcliplib.get_tokenizer(model)") from error
        return nn.functional.normalize(features, dim=-1) if normalize else features

    def forward(self, pixels: Tensor, tokens: Tensor) -> Features:
        """Normalised features of both; see `encode_image` and `encode_text`."""
        image, text = self.encode_image(pixels, normalize=True), self.encode_text(tokens, normalize=True)
        return Features(image, text, self.scale)

    def _check_tokens(self, tokens: Tensor) -> None:
        length = self.config.text.context_length
        if tokens.dim() != 2 or tokens.shape[1] != length or tokens.is_floating_point():
            raise ValueError(
                f"tokens must be integers of shape [B, {length}], got {tokens.dtype} {list(tokens.shape)}; "
                f"use mcliplib.get_tokenizer(model)"
            )


def build(config: ModelConfig) -> MobileCLIP:
    """A model with random weights, in train mode."""
    tower = ViT if isinstance(config.image, ViTConfig) else MCi
    image = tower(config.image, config.embed_dim)  # type: ignore[arg-type]
    text = TextEncoder(config.text, config.embed_dim)
    return MobileCLIP(config, image, text)


def _check_pixels(pixels: Tensor) -> None:
    if pixels.dim() != 4 or pixels.shape[1] != 3 or min(pixels.shape[2:]) < MIN_PIXELS:
        raise ValueError(
            f"pixels must be [B, 3, H, W] with H and W at least {MIN_PIXELS}, got {list(pixels.shape)}; "
            f"use mcliplib.get_preprocess(model) and stack the results"
        )
    if not pixels.is_floating_point():
        raise ValueError(f"pixels must be floating point in [0, 1], got {pixels.dtype}; divide bytes by 255")
