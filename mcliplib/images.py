"""Pictures as RGB, whatever the file holds."""

from PIL import Image


def on_white(image: Image.Image) -> Image.Image:
    """The image as RGB; where it is transparent, white shows through: a cut-out's hidden pixels can hold anything.

    Raises:
        ValueError: floating-point pixels.
    """
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode == "F":
        raise ValueError("a picture of floating-point numbers has no known range; save it with 8 or 16 bits a pixel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")
