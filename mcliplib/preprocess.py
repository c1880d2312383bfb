"""Pictures to pixels, the way the released MobileCLIP models expect them: most want no mean, no standard deviation."""

import os
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from mcliplib._vision import InterpolationMode
from mcliplib._vision import functional as tv
from mcliplib.images import as_rgb, read_picture
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
            image: any PIL image, or the path of a picture. It is turned upright by its EXIF data; transparency is laid
                on white.

        Raises:
            PictureError: no picture at the path, or one with more than `mcliplib.images.MAX_PIXELS`.
            TypeError: something else, an array or a tensor for example; says how to make an image of it.
        """
        if isinstance(image, str | os.PathLike):
            image = read_picture(image).image
        return preprocess_image(image, self.size, self.config)


def preprocess_image(image: Image.Image, size: int, config: PixelConfig = ZERO_TO_ONE) -> Tensor:
    """`Preprocess(size, config)(image)`, of a PIL image only."""
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"image must be a PIL image or a path, got {type(image).__name__}; of bytes [H, W, 3] in an array, "
            f"PIL.Image.fromarray makes one, of a tensor [3, H, W], torchvision's to_pil_image"
        )
    pixels = tv.to_tensor(_central_square(as_rgb(image), size, config))
    return tv.normalize(pixels, list(config.mean), list(config.std))


_LONGEST = 32  # sides of the square; only pictures longer than that pay for the second way


def _central_square(image: Image.Image, size: int, config: PixelConfig) -> Image.Image:
    """The shorter side resized to `size`, the centre cropped; of an extreme shape only the centre is resized."""
    shorter, longer = sorted(image.size)
    mode = InterpolationMode(config.interpolation)
    if longer <= _LONGEST * shorter:
        return tv.center_crop(tv.resize(image, [size], mode), [size, size])
    scale, resized = longer / int(size * longer / shorter), int(size * longer / shorter)
    first = round((resized - size) / 2) * scale
    box = (first, 0.0, first + size * scale, float(shorter))
    upright_box = box if image.width == longer else (box[1], box[0], box[3], box[2])
    return image.resize((size, size), getattr(Image.Resampling, mode.name), box=upright_box)
