"""A local teacher: pretrained towers joined by small heads, trained on our pairs; the image tower locked or tuned.

Locked, the towers are not touched (LiT, 2111.07991). Tuned, the image tower was trained too, from there on; of what
looks like a photograph, the frozen one is asked as well, since drawings make a tower forget photographs.

The heads are residual and start as ConSE and MiniLM themselves: each output layer starts at zero, so the untrained
heads give what the frozen towers already know about photographs and words that no training pair shows; training and
weight decay decide how far to go from there. (The residual form is that of CLIP-Adapter, 2110.04544.)
"""

import copy
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from mcliplib.checkpoints.files import read_checkpoint, weights_sha256
from mcliplib.checkpoints.int8 import from_int8
from mcliplib.data import data_root
from mcliplib.errors import UserError
from mcliplib.files import fitted, read_json
from mcliplib.preprocess import preprocess_image
from mcliplib.reinforce.teachers.efficientnet import FEATURES, IMAGE_WIDTH, Frozen, LiteFeatures
from mcliplib.reinforce.teachers.features import in_batches
from mcliplib.reinforce.teachers.minilm import WIDTH, MiniLM

KEPT = 0.6  # of ConSE, times the confidence; chosen on photographs of two training sets left out of the training
VARIANTS = ("lite0", "lite2")
TOWER = "tower."  # before the names of a tuned image tower's weights
GATE = "gate."
MOST_PIXELS = 1024  # the side of what a teacher's file may ask for
IMAGE_SIZE = 160  # pixels; twice the side of most of our pictures, at half the cost of the towers' own 224 and 260


class Heads(nn.Module):
    """Frozen image and text features to one space of 384 dimensions.

    Args:
        image_hidden: width of the image head's hidden layer.
        text_hidden: width of the text head's; 0 for none, so that several teachers share MiniLM's space.
        dropout: of the inputs and the hidden layers, in training.
    """

    def __init__(self, *, image_hidden: int = 384, text_hidden: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.image = _mlp(IMAGE_WIDTH, image_hidden, dropout)
        self.text = _mlp(WIDTH, text_hidden, dropout) if text_hidden else None
        self.pooled_norm = nn.LayerNorm(FEATURES)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def encode_image(self, features: Float[Tensor, "n 1664"]) -> Float[Tensor, "n 384"]:
        """Pooled features and ConSE embedding to normalised features."""
        pooled, conse = features.split([FEATURES, WIDTH], dim=-1)
        change = self.image(torch.cat([self.pooled_norm(pooled), conse * WIDTH**0.5], dim=-1))
        return nn.functional.normalize(conse + change, dim=-1)

    def recall(self, encoded: Float[Tensor, "n 384"], frozen: Frozen) -> Float[Tensor, "n 384"]:
        """`encode_image`'s features, with the frozen CNN's ConSE mixed in as far as it is sure.

        Training on drawings makes the heads forget what the CNN knows of photographs; a mixture of the tuned and the
        untuned model keeps both (Wortsman et al., 2109.01903).
        """
        mixed = encoded + KEPT * frozen.confidence * frozen.features[:, FEATURES:]
        return nn.functional.normalize(mixed, dim=-1)

    def encode_text(self, features: Float[Tensor, "m 384"]) -> Float[Tensor, "m 384"]:
        """MiniLM's embeddings to normalised features."""
        change = self.text(features * WIDTH**0.5) if self.text is not None else 0.0
        return nn.functional.normalize(features + change, dim=-1)

    @property
    def scale(self) -> Tensor:
        """The inverse temperature of the softmax."""
        return self.log_scale.exp()


class Trained(NamedTuple):
    """The content of a teacher's file."""

    heads: Heads  # float32, eval mode
    tower: dict[str, Tensor] | None  # of the image tower, where it was tuned too; without the classifier
    gate: nn.Linear | None  # of a tuned tower's pooled features: above 0 for photographs
    about: dict[str, Any]


def load_trained(path: Path) -> Trained:
    """Read a teacher's file.

    Raises:
        UserError: no such file, or not one that `mcliplab.teachers.fit.save_trained` wrote.
    """
    try:
        found = read_checkpoint(path)
        about = fitted(read_json(found.header["heads"], "heads"), dict[str, Any], "heads")
        heads = Heads(image_hidden=int(about["image_hidden"]), text_hidden=int(about["text_hidden"]))
        if not 1 <= int(about.get("image_size", IMAGE_SIZE)) <= MOST_PIXELS:
            raise ValueError(f"image_size must be from 1 to {MOST_PIXELS}")
        tensors = from_int8(found.tensors)
        tower, gate = (_taken(tensors, prefix) for prefix in (TOWER, GATE))
        heads.load_state_dict(tensors)
        photo = nn.Linear(FEATURES, 1).requires_grad_(False)
        if gate:
            photo.load_state_dict(gate)
    except (UserError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: no trained heads ({error}); `mcliplib teachers train` makes them") from error
    return Trained(heads.eval().requires_grad_(False), tower or None, photo if gate else None, about)


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take out what has the prefix in its name."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden, WIDTH)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), last)


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

    def __init__(
        self,
        variant: str = "lite0",
        device: str | torch.device = "cpu",
        heads: Heads | str | os.PathLike[str] | None = None,
        text: MiniLM | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or f"lit-{variant}"
        if not isinstance(heads, Heads):
            path = heads_path(variant) if heads is None else Path(heads)
            heads, tower, gate, about = load_trained(path)
            if (made_for := about.get("variant", variant)) != variant:
                raise UserError(f"{path}: heads of {made_for}, not of {variant}")
        else:
            tower, gate, about = None, None, {}
        self.image_size = int(about.get("image_size", IMAGE_SIZE))
        self.heads, self.text = heads.eval(), text or MiniLM()
        self.features = LiteFeatures(variant, self.text)
        self.tuned = tuned_features(self.features, tower) if tower else None
        self.gate = gate
        self.to(device)
        self.identity = {
            **self.features.tower.identity(),
            **self.text.identity(),
            "heads_sha256": weights_sha256(self.heads.state_dict()),
            **({"tower_sha256": weights_sha256(self.tuned.state_dict())} if self.tuned else {}),
            **({"gate_sha256": weights_sha256(self.gate.state_dict())} if self.gate else {}),
            "image_size": str(self.image_size),
            **({"kept": str(KEPT)} if self.tuned is None or self.gate is not None else {}),
            **{f"heads_{name}": value for name, value in about.items() if name != "image_size"},
        }

    def to(self, device: str | torch.device) -> None:
        """Move to a device."""
        self.device = torch.device(device)
        for part in (self.heads, self.text, self.features, self.tuned, self.gate):
            if part is not None:
                part.to(self.device)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 384"]:
        """Pixels in [0, 1] to normalised features, float32, on the CPU."""
        pixels = pixels.to(self.device)
        if self.tuned is None:
            frozen = self.features(pixels)
            return self.heads.recall(self.heads.encode_image(frozen.features), frozen).float().cpu()
        features = self.tuned(pixels).features
        encoded = self.heads.encode_image(features)
        if self.gate is not None and (photo := self.gate(features[:, :FEATURES])[:, 0] > 0).any():
            encoded[photo] = self.heads.recall(encoded[photo], self.features(pixels[photo]))
        return encoded.float().cpu()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m 384"]:
        """Texts to normalised features, float32, on the CPU."""
        return self.heads.encode_text(self.text(texts)).float().cpu()

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n 384"]:
        """Pictures of any size, shorter side resized and centre cropped, to normalised features."""
        return in_batches(self.encode_pixels, images, lambda image: preprocess_image(image, self.image_size), self.dim)


def tuned_features(features: LiteFeatures, tower: Mapping[str, Tensor]) -> LiteFeatures:
    """Return a copy of the features whose tower has these weights; its classifier keeps its own.

    Args:
        features: left as they are.
        tower: some or all of the tower's weights, by name.
    """
    own = copy.deepcopy(features)
    own.tower.load_state_dict(features.tower.state_dict() | dict(tower))
    return own


def heads_path(name: str) -> Path:
    """Where a shipped teacher's file is: "lite0" of locked towers, "tuned-lite0" of tuned ones."""
    return data_root() / "teachers" / f"{name}.safetensors"
