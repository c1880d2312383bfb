"""The model of an index: found by name, told from others by a hash, and asked for vectors."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mcliplib.checkpoints import load_model
from mcliplib.checkpoints.files import weights_sha256
from mcliplib.checkpoints.formats import config_to_json
from mcliplib.checkpoints.wrappers import plain_names, unwrapped
from mcliplib.errors import UserError
from mcliplib.evaluate import ModelEncoder
from mcliplib.factory import create_model
from mcliplib.hub import PREFIX
from mcliplib.images import read_picture
from mcliplib.layers.cpu import is_for_cpu, optimize_for_cpu
from mcliplib.layers.fold import is_folded
from mcliplib.model import MobileCLIP
from mcliplib.presets import list_models
from mcliplib.reparam import reparameterize

STUDENT = "student"
RANDOM = "random:"  # before a preset's name
_SEED = 0


def search_model(name: str | Path) -> MobileCLIP:
    """The model that a name stands for, in eval mode.

    Args:
        name: "student" (the shipped one), whatever `mcliplib.load_model` takes (a checkpoint, a training run's folder,
            `hf-hub:apple/MobileCLIP-S0`), or "random:" and a preset's name: random weights, the same each time.

    Raises:
        UserError: as `load_model`; or it is a preset's bare name, which stands for no weights.
    """
    text = os.fspath(name)
    if text.startswith(RANDOM):
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            return create_model(text.removeprefix(RANDOM))
    if text in list_models() and not Path(text).exists():
        raise UserError(
            f"{text}: is a model without weights, which finds nothing; name a checkpoint, `{PREFIX}OWNER/REPO`, or try "
            f"the program out with --random-weights (in Python: '{RANDOM}{text}')"
        )
    return load_model(name)


@dataclass(frozen=True)
class Identity:
    """Which model made the vectors.

    Attributes:
        name: its preset's.
        sha256: of settings and weights; another one, another space of vectors.
        image_size: pixels of a side.
        dim: numbers of a vector.
        source: the name by which `search_model` finds it again; None for a model that was given in memory.
    """

    name: str
    sha256: str
    image_size: int
    dim: int
    source: str | None

    def __str__(self) -> str:
        where = f" from {self.source}" if self.source else ""
        return f"{self.name}{where} (weights {self.sha256[:12]}, {self.image_size} pixels)"


class Embedder:
    """A model as the index uses it: pictures and texts to normalised vectors.

    Args:
        model: in eval mode, on any device; a copy is folded, and on a CPU laid out for it. Or a name, as `search_model`
            takes it.

    Raises:
        UserError: no model has this name.
        RuntimeError: the model is in train mode.
    """

    def __init__(self, model: MobileCLIP | str | Path) -> None:
        if isinstance(model, str | Path):
            plain, source = search_model(model), _lasting(model)
        else:
            plain, source = unwrapped(model), None
        self.identity = identify(plain, source)
        if not is_folded(plain):
            plain = reparameterize(plain)
        if plain.logit_scale.device.type == "cpu" and not is_for_cpu(plain):
            plain = optimize_for_cpu(plain)
        self._encoder = ModelEncoder(plain)

    def open(self, content: bytes) -> Image.Image:
        """An encoded picture, upright, its shorter side at most twice what the model sees: many fit into memory.

        Raises:
            PictureError: see `mcliplib.images.read_picture`.
        """
        return read_picture(content, side=2 * self.identity.image_size).image

    def images(self, images: list[Image.Image]) -> Float[Tensor, "n d"]:
        """Of length 1, float32, on the CPU."""
        return self._encoder.encode_images(images)

    def text(self, text: str) -> Float[Tensor, " d"]:
        """Of length 1, float32, on the CPU."""
        return self._encoder.encode_texts([text.encode(errors="replace").decode()])[0]


def identify(model: MobileCLIP, source: str | None = None) -> Identity:
    """Name, hash, sizes; the hash is of all numbers of the model, and of its settings."""
    config, weights = model.config, plain_names(model.state_dict())
    numbers = weights_sha256({f"{name} {value.dtype}": value for name, value in weights.items()})
    digest = hashlib.sha256(f"{config_to_json(config)} {numbers}".encode())
    return Identity(config.name, digest.hexdigest(), config.image.image_size, config.embed_dim, source)


def _lasting(name: str | Path) -> str:
    """The name as it will be understood from any folder."""
    text = os.fspath(name)
    known = text == STUDENT or text.startswith((RANDOM, PREFIX))
    return text if known else str(Path(text).expanduser().absolute())
