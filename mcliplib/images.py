"""The one way to open a picture: RGB, upright, transparency on white, bounded in pixels and in memory."""

import contextlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image

from mcliplib.errors import MissingFileError, UserError, first_line

MAX_PIXELS = 200_000_000  # present phones reach 200 megapixels
WHOLE_PIXELS = 16_000_000  # decoded at full size up to here; a larger JPEG at 1/2, 1/4 or 1/8 of its sides
_REDUCED = ("JPEG", "MPO")  # formats that can be decoded at a fraction of their size
_UNREDUCED_SHARE = 4  # a picture of another format, which takes all its memory, may have a quarter of the pixels
_FORMATS = (*_REDUCED, "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")  # others can run programs, as EPS does
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_header_lock = threading.Lock()


class PictureError(UserError):
    """A picture that cannot be used.

    Attributes:
        reason: the kind of fault, for counting: "corrupt image", "giant image" or "HEIC without pillow-heif".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["PictureError"], tuple[str, str]]:
        return PictureError, (self.reason, str(self))


class Picture(NamedTuple):
    """A decoded picture.

    Attributes:
        image: RGB.
        size: (width, height) in the file, after turning it upright; `image` is smaller where it was decoded reduced.
    """

    image: Image.Image
    size: tuple[int, int]


def read_picture(
    source: bytes | str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    side: int | None = None,
    enough: int | None = None,
    upright: bool = True,
) -> Picture:
    """Decode a picture: JPEG, PNG, WebP, GIF (its first frame), BMP, TIFF, AVIF, and HEIC with the extra `heic`.

    A JPEG of more than `WHOLE_PIXELS` is decoded at the largest of 1/2, 1/4 and 1/8 of its sides that is within them.

    Args:
        source: the file's bytes, or its path.
        max_pixels: refuse pictures that announce more (a quarter of it where the format cannot be decoded reduced).
        side: pixels to which the shorter side is shrunk where it is longer, for less memory.
        enough: as `side`, for less time: a large JPEG is decoded reduced, and nothing is shrunk afterwards.
        upright: turn the picture as its EXIF orientation says. False gives the pixels as they are stored.

    Raises:
        PictureError: a damaged picture, one with too many pixels, or HEIC without its decoder.
        MissingFileError: no such file.
    """
    name = "the picture" if isinstance(source, bytes) else os.fspath(source)
    try:
        with _opened(source) as image:
            _check_pixels(image, max_pixels, name)
            # Pillow turns a TIFF itself, and gives its size as turned.
            turn = orientation(image) if upright and image.format != "TIFF" else 1
            full = image.size[::-1] if turn in _SIDEWAYS else image.size
            _draft(image, side or enough)
            turned = on_white(turn_upright(image) if upright else image)
            turned.info.clear()  # of EXIF data above all, by which the picture would be turned again
            return Picture(turned if side is None else shrunk(turned, side), full)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise _explained(source, name, error) from error


def is_picture(content: bytes) -> bool:
    """Whether the bytes begin as a picture that `read_picture` may read; nothing is decoded."""
    with contextlib.suppress(Exception), _opened(content):  # Pillow raises nearly anything
        return True
    return False


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # width and height change places
_TAGS = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # where Pillow finds an orientation


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none, or none that can be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF data: Pillow raises nearly anything, and the pixels may be whole
        return 1
    return value if value in _TURNS else 1


def turn_upright(image: Image.Image) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation says; itself where there is nothing to do."""
    image.load()  # which turns a TIFF already
    if (turn := orientation(image)) == 1:
        return image
    turned = image.transpose(_TURNS[turn])
    for tag in _TAGS:
        turned.info.pop(tag, None)
    return turned


def as_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image upright, on white, as RGB.

    Raises:
        ValueError: floating-point pixels.
    """
    return on_white(turn_upright(image))


def on_white(image: Image.Image) -> Image.Image:
    """The image as RGB; where it is transparent, white shows through: a cut-out's hidden pixels can hold anything.

    Raises:
        ValueError: floating-point pixels.
    """
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode == "F":
        raise ValueError("a picture of floating-point numbers has no known range; save it with 8 or 16 bits a pixel")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side at most `side` pixels; itself where it is so already."""
    shorter = min(image.size)
    if shorter <= side:
        return image
    width, height = (max(1, round(length * side / shorter)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


@contextlib.contextmanager
def _opened(source: bytes | str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The picture's header. Pillow's own limit, which no argument can raise, is lifted meanwhile: ours follows."""
    if not isinstance(source, bytes) and not Path(source).is_file():  # a device or a pipe might never end
        raise MissingFileError(f"{os.fspath(source)}: no such picture")
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open(source, "rb"))
        _register_heif(file.read(12))
        file.seek(0)
        with _header_lock:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                Image.init()
                image = stack.enter_context(Image.open(file, formats=[one for one in _FORMATS if one in Image.OPEN]))
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        yield image


def _check_pixels(image: Image.Image, max_pixels: int, name: str) -> None:
    most = max_pixels if image.format in _REDUCED else max(1, max_pixels // _UNREDUCED_SHARE)
    if image.width * image.height > most:
        raise PictureError(
            "giant image",
            f"{name}: has {image.width} x {image.height} pixels, and a {image.format} may have {most:,} where "
            f"max_pixels is {max_pixels:,}; allow more (--max-pixels), or shrink the picture",
        )


def _draft(image: Image.Image, side: int | None) -> None:
    """Ask a JPEG's decoder for the largest picture within the memory bound, or one that still is twice `side`."""
    if image.format not in _REDUCED:
        return
    width, height = image.size
    enough = min(width, height) // (2 * side) if side else 1
    share = next(one for one in (1, 2, 4, 8) if one == 8 or width * height <= WHOLE_PIXELS * one * one)
    share = max(share, next(one for one in (8, 4, 2, 1) if one <= max(1, enough)))
    if share > 1:
        image.draft(None, (max(1, width // share), max(1, height // share)))


def _is_heic(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def _register_heif(start: bytes) -> None:
    if _is_heic(start):
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()


def _explained(source: bytes | str | os.PathLike[str], name: str, error: Exception) -> PictureError:
    start = source[:12] if isinstance(source, bytes) else b""
    if not isinstance(source, bytes) and Path(source).is_file():
        with contextlib.suppress(OSError), Path(source).open("rb") as file:
            start = file.read(12)
    if _is_heic(start) and "HEIF" not in Image.OPEN:
        return PictureError(
            "HEIC without pillow-heif", f"{name}: is a HEIC picture; to read it: pip install 'mcliplib[heic]'"
        )
    return PictureError("corrupt image", f"{name}: not a whole picture ({first_line(error)})")
