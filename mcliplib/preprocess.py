"""Pictures to pixels, the way the released MobileCLIP models expect them: most want no mean, no standard deviation."""

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from mcliplib._vision import InterpolationMode
from mcliplib._vision import functional as tv
from mcliplib.images import on_white
from mcliplib.model import PixelConfig

ZERO_TO_ONE = PixelConfig()


def preprocess_image(image: Image.Image, size: int, config: PixelConfig = ZERO_TO_ONE) -> Tensor:
    """Resize the shorter side, crop the centre, scale to [0, 1], normalise.

    Args:
        image: any PIL image; transparency is laid on white.
        size: height and width of the result.
        config: mean and standard deviation per channel, and the interpolation.

    Returns:
        [3, size, size], float32.
    """
    resized = tv.resize(on_white(image), [size], InterpolationMode(config.interpolation))
    pixels = tv.to_tensor(tv.center_crop(resized, [size, size]))
    return tv.normalize(pixels, list(config.mean), list(config.std))


def preprocessor(size: int, config: PixelConfig = ZERO_TO_ONE) -> Callable[[Image.Image], Tensor]:
    """`preprocess_image` with one size and settings."""

    def preprocess(image: Image.Image) -> Tensor:
        return preprocess_image(image, size, config)

    return preprocess
