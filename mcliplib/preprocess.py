"""Pictures to pixels, the way the released MobileCLIP models expect them: no mean, no standard deviation."""

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from mcliplib._vision import InterpolationMode
from mcliplib._vision import functional as tv
from mcliplib.images import on_white


def preprocess_image(image: Image.Image, size: int) -> Tensor:
    """Resize the shorter side (bilinear), crop the centre, scale to [0, 1].

    Args:
        image: any PIL image; transparency is laid on white.
        size: height and width of the result.

    Returns:
        [3, size, size], float32 in [0, 1].
    """
    resized = tv.resize(on_white(image), [size], InterpolationMode.BILINEAR)
    return tv.to_tensor(tv.center_crop(resized, [size, size]))


def preprocessor(size: int) -> Callable[[Image.Image], Tensor]:
    """`preprocess_image` at one size."""

    def preprocess(image: Image.Image) -> Tensor:
        return preprocess_image(image, size)

    return preprocess
