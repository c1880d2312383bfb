"""Pictures to pixels, the way the released MobileCLIP models expect them: no mean, no standard deviation."""

from collections.abc import Callable

from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tv
from torchvision.transforms.functional import InterpolationMode


def preprocess_image(image: Image.Image, size: int) -> Tensor:
    """Resize the shorter side (bilinear), crop the centre, scale to [0, 1].

    Args:
        image: any PIL image; transparency is laid on white.
        size: height and width of the result.

    Returns:
        [3, size, size], float32 in [0, 1].
    """
    resized = tv.resize(to_rgb(image), [size], InterpolationMode.BILINEAR)
    return tv.to_tensor(tv.center_crop(resized, [size, size]))


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency laid on white: a cut-out's hidden pixels can hold anything."""
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def preprocessor(size: int) -> Callable[[Image.Image], Tensor]:
    """`preprocess_image` at one size."""

    def preprocess(image: Image.Image) -> Tensor:
        return preprocess_image(image, size)

    return preprocess
