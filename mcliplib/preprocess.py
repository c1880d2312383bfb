"""Pictures to pixels, the way the released MobileCLIP models expect them: most want no mean, no standard deviation."""

import os
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from mcliplib._vision import InterpolationMode
from mcliplib._vision import functional as tv
from mcliplib.images import on_white
from mcliplib.model import PixelConfig

ZERO_TO_ONE = PixelConfig()


@dataclass(frozen=True)
class Preprocess:
    """A picture to pixels: the shorter side resized, the centre cropped, scaled to [0, 1], normalised.

    Attributes:
        size: height and width of the result.
        config: mean and standard deviation per channel, and the interpolation.
    """

    size: int
    config: PixelConfig = ZERO_TO_ONE

    def __call__(self, image: Image.Image | str | os.PathLike[str]) -> Tensor:
        """[3, size, size], float32.

        Args:
            image: any PIL image, or the path of a picture; transparency is laid on white.

        Raises:
            TypeError: something else, an array or a tensor for example; says how to make an image of it.
        """
        if isinstance(image, str | os.PathLike):
            with Image.open(image) as opened:
                return preprocess_image(opened, self.size, self.config)
        return preprocess_image(image, self.size, self.config)


def preprocess_image(image: Image.Image, size: int, config: PixelConfig = ZERO_TO_ONE) -> Tensor:
    """`Preprocess(size, config)(image)`, of a PIL image only."""
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"image must be a PIL image or a path, got {type(image).__name__}; of bytes [H, W, 3] in an array, "
            f"PIL.Image.fromarray makes one, of a tensor [3, H, W], torchvision's to_pil_image"
        )
    resized = tv.resize(on_white(image), [size], InterpolationMode(config.interpolation))
    pixels = tv.to_tensor(tv.center_crop(resized, [size, size]))
    return tv.normalize(pixels, list(config.mean), list(config.std))
