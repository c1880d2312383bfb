"""What every reader of pictures needs first: RGB, whatever the file holds."""

from PIL import Image


def on_white(image: Image.Image) -> Image.Image:
    """The image as RGB; where it is transparent, white shows through: a cut-out's hidden pixels can hold anything."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")
