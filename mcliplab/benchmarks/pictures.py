"""Our small pictures in the size of web pictures, so that decoding takes about what it takes there."""

import io

from PIL import Image

from mcliplib.data import decode_image

_QUALITY = 95


def web_jpeg(stored: bytes, side: int) -> bytes:
    """The picture as a JPEG.

    Args:
        stored: an encoded picture.
        side: pixels of the longer side.
    """
    image = decode_image(stored)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    stream = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
