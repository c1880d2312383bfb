"""What a reinforcement run asks of a teacher and of a captioner; anything with these members will do."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from PIL import Image
from torch import Tensor


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
