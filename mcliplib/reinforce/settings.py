"""The settings of a run, and the members that teachers and captioners must have.

Equal settings, input and models give equal bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, get_args, runtime_checkable

from PIL import Image
from torch import Tensor

from mcliplib.errors import UserError
from mcliplib.images import MAX_PIXELS
from mcliplib.precision import Computed
from mcliplib.reinforce.augment import PAPER, AugmentSettings
from mcliplib.reinforce.sample import EmbeddingDType


@dataclass(frozen=True)
class ReinforceSettings:
    """Settings of a run, written to its manifest.

    Attributes:
        augmentations: N views of each image. DataCompDR (2311.17049) has 10 for 1B pairs, 30 for 12M.
        captions: M synthetic captions of each image; without a captioner there are none.
        dtype: of the stored embeddings.
        augment: what the views are drawn from.
        seed: of the views and of the captions; each sample's views depend on it and on the sample's key alone.
        shard_size: samples of a list that make one output shard; an input shard stays one output shard.
        batch_size: views, or texts, in one call of a teacher. Batches never cross a shard.
        max_pixels: pictures that announce more are skipped (`mcliplib.images.read_picture`).
        compute: what the teachers compute in, "float32" or "bfloat16", which on GPUs is about twice as fast.
        threads: torch's while teachers run. Not taken from the machine: the last bits of sums depend on it.

    Raises:
        UserError: a number is out of its range.
    """

    augmentations: int = 10
    captions: int = 5
    dtype: EmbeddingDType = "bfloat16"
    augment: AugmentSettings = field(default=PAPER)
    seed: int = 0
    shard_size: int = 1000
    batch_size: int = 64
    max_pixels: int = MAX_PIXELS
    compute: Computed = "float32"
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("augmentations", "shard_size", "batch_size", "max_pixels", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.captions < 0:
            raise UserError(f"captions must not be negative, got {self.captions}")
        if self.compute not in get_args(Computed):
            raise UserError(f"compute must be one of {', '.join(get_args(Computed))}, got {self.compute!r}")
        if self.dtype not in get_args(EmbeddingDType):
            raise UserError(f"dtype must be one of {', '.join(get_args(EmbeddingDType))}, got {self.dtype!r}")


@runtime_checkable
class Teacher(Protocol):
    """An image-text model that is asked, never trained.

    Attributes:
        name: for the manifest; with `identity` it tells which weights these are.
        identity: versions, hashes or tags of what the teacher is made of.
        dim: width of its features.
        image_size: pixels it wants, height and width.
    """

    name: str
    identity: dict[str, str]
    dim: int
    image_size: int

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, image_size, image_size] in [0, 1] to normalised features [N, dim], float32."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to normalised features [M, dim], float32."""


@runtime_checkable
class Captioner(Protocol):
    """Something that says in words what is in a picture.

    Attributes:
        name: for the manifest.
        identity: versions, hashes or tags of what the captioner is made of.
    """

    name: str
    identity: dict[str, str]

    def caption(self, images: Sequence[Image.Image], keys: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """`count` captions for each image; a function of the image, its key and the seed, whatever the batch.

        Args:
            images: RGB pictures of any size.
            keys: the samples' keys. A captioner that was trained on some of the samples uses them to ask the fold
                that never saw the sample's caption.
            count: captions per image.
            seed: of the sampling.
        """
