"""The one way to open a picture, and that every room goes it."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

import mcliplib
from mcliplib import images, preprocess
from mcliplib.data import ReadReport, decode_image, read_shards, write_shard
from mcliplib.images import PictureError, as_rgb, read_picture
from mcliplib.reinforce import augment
from tests.conftest import refused

TURNS = images._TURNS


@pytest.fixture(scope="module")
def photo(colourful):
    """Smooth enough to survive JPEG."""
    return colourful.resize((21, 15)).resize(colourful.size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, orientation: int = 1, kind: str = "JPEG", **options: object) -> bytes:
    """The picture's bytes, stored as a camera does that was held so: its pixels turned, the tag saying how back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    # A HEIC turns its pixels by a tag of its own, which counts alone.
    turned = orientation > 1 and kind != "HEIF"
    stored = image.transpose(back.get(orientation, TURNS[orientation])) if turned else image
    buffer = io.BytesIO()
    stored.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def near(one: Image.Image, other: Image.Image, most: float = 4.0) -> bool:
    if one.size != other.size:
        return False
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean()) < most


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_orientation_is_upright_wherever_a_picture_is_opened(photo, orientation, kind, tmp_path):
    if kind == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.register_heif_opener()
    payload = encoded(photo, orientation, kind, quality=95)
    picture = read_picture(payload)
    assert near(picture.image, photo)
    assert picture.size == photo.size
    assert images.orientation(picture.image) == 1  # nobody turns it once more
    assert near(as_rgb(picture.image), photo)
    assert near(decode_image(payload), photo)
    (path := tmp_path / "photo").write_bytes(payload)
    pixels = mcliplib.get_preprocess("mobileclip_nano")
    assert torch.allclose(pixels(path), pixels(picture.image))
    with Image.open(path) as opened:
        assert torch.allclose(pixels(opened), pixels(picture.image), atol=0.02)
    member = {"HEIF": "heic", "AVIF": "avif"}.get(kind, "jpg")
    write_shard(tmp_path / "a.tar", [("k", {member: payload, "txt": b"a thing"})])
    assert near(next(iter(read_shards(tmp_path / "a.tar"))).image, photo)


def test_stored_pixels_where_a_set_was_made_of_them(photo):
    stored = read_picture(encoded(photo, 6), upright=False)
    assert stored.size == photo.size[::-1]
    assert near(stored.image, photo.transpose(Image.Transpose.ROTATE_90))


def test_damaged_exif_costs_no_picture(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x00", quality=95)
    assert near(read_picture(buffer.getvalue()).image, photo)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_and_its_crops_with_it(photo, orientation, monkeypatch):
    large = photo.resize((640, 420), Image.Resampling.BICUBIC)
    whole = read_picture(encoded(large, orientation, quality=95))
    monkeypatch.setattr(images, "WHOLE_PIXELS", 640 * 420 // 4)
    picture = read_picture(encoded(large, orientation, quality=95))
    assert picture.size == (640, 420)
    assert picture.image.size == (320, 210)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = augment.sample(picture.size, generator)
        one = augment.apply(whole.image, drawn, 64)
        other = augment.apply(picture.image, drawn, 64, original=picture.size)
        assert (one - other).abs().mean() < 0.06
    with pytest.raises(mcliplib.errors.UserError, match="leaves the image"):
        augment.apply(picture.image, augment.Augmentation(augment.Box(0, 0, 421, 1)), 8, original=picture.size)


def test_draft_keeps_within_the_bound_for_every_shape(monkeypatch):
    monkeypatch.setattr(images, "WHOLE_PIXELS", 10_000)
    for size in ((101, 100), (201, 203), (799, 401), (1, 20_000), (3, 9_001)):
        picture = read_picture(encoded(Image.new("RGB", size, "red")))
        assert picture.size == size
        assert picture.image.width * picture.image.height <= 10_000 or min(size) < 8


def test_too_many_pixels_are_refused_with_the_limit_and_the_flag(photo):
    many = photo.width * photo.height
    read_picture(encoded(photo), max_pixels=many)
    read_picture(encoded(photo, kind="PNG"), max_pixels=4 * many)
    for kind in ("JPEG", "PNG"):
        with pytest.raises(PictureError, match=f"{photo.width} x {photo.height} pixels.*--max-pixels") as error:
            read_picture(encoded(photo, kind=kind), max_pixels=many - 1)
        assert error.value.reason == "giant image"


def test_what_present_phones_make_passes_without_a_warning(recwarn):
    phone = encoded(Image.new("RGB", (16_320, 12_240), "white"), quality=30)  # 200 megapixels
    picture = read_picture(phone)
    assert picture.size == (16_320, 12_240)
    assert picture.image.width * picture.image.height <= images.WHOLE_PIXELS
    assert not recwarn.list
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own limit is back


def test_a_picture_that_is_only_decoded_reduced_is_not_shrunk(photo):
    large = photo.resize((1000, 700))
    assert read_picture(encoded(large, kind="JPEG"), enough=100).image.size == (500, 350)
    assert read_picture(encoded(large, kind="PNG"), enough=100).image.size == (1000, 700)


def test_a_shrunk_picture_is_no_larger_than_asked(photo):
    large = photo.resize((1000, 700))
    for kind in ("JPEG", "PNG"):
        picture = read_picture(encoded(large, 6, kind=kind, quality=95), side=100)
        assert min(picture.image.size) == 100
        assert picture.size == (1000, 700)
        assert near(picture.image, large.resize(picture.image.size, Image.Resampling.BICUBIC), 8)
    small = read_picture(encoded(photo, kind="PNG"), side=5_000)
    assert np.array_equal(small.image, photo)


def test_heic_without_its_decoder_names_the_extra(tmp_path):
    code = """
import sys
sys.modules["pillow_heif"] = None
from mcliplib.images import PictureError, read_picture
try:
    read_picture(b"\\0\\0\\0\\x18ftypheic" + bytes(64))
except PictureError as error:
    print(error.reason, "/", error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600).stdout
    assert said.startswith("HEIC without pillow-heif / ")
    assert "pip install 'mcliplib[heic]'" in said


@pytest.mark.parametrize(
    "payload", [b"", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff"]
)
def test_what_is_no_picture(payload, tmp_path: Path):
    with pytest.raises(PictureError) as error:
        read_picture(payload)
    assert error.value.reason == "corrupt image"
    (path := tmp_path / "x.jpg").write_bytes(payload)
    with pytest.raises(PictureError, match=r"x\.jpg: not a whole picture"):
        mcliplib.get_preprocess("mobileclip_nano")(path)


def test_paths_that_are_no_files():
    for path in ("nowhere.png", "/dev/zero", "/"):
        with pytest.raises(FileNotFoundError):
            read_picture(path)


def test_an_extreme_shape_takes_no_memory_and_gives_the_same_pixels(photo, monkeypatch):
    """As wide as thousands of its height: only the centre is enlarged, to the pixels that all of it would have."""
    for size in ((1, 4_000), (16_000, 1)):
        pixels = preprocess.Preprocess(256)(Image.new("RGB", size, "white"))
        assert pixels.shape == (3, 256, 256)
        assert pixels.min() == 1
    monkeypatch.setattr(preprocess, "_LONGEST", 1)
    for size in ((97, 60), (60, 97), (400, 33), (31, 800)):
        image = photo.resize(size)
        for mode in ("bilinear", "bicubic"):
            config = preprocess.PixelConfig(interpolation=mode)
            whole = tv.center_crop(tv.resize(image, [64], InterpolationMode(mode)), [64, 64])
            assert (preprocess.preprocess_image(image, 64, config) - tv.to_tensor(whole)).abs().max() <= 2.01 / 255


def test_reading_counts_by_reason(photo, tmp_path):
    good = encoded(photo)
    samples = [(f"a{n}", {"jpg": good, "txt": b"a thing"}) for n in range(18)]
    samples += [("cut", {"jpg": good[:200], "txt": b"a thing"})]
    write_shard(tmp_path / "a.tar", samples)
    report = ReadReport()
    assert len(list(read_shards(tmp_path / "a.tar", report=report))) == 18
    assert report.reasons == {"corrupt image": 1}


def test_preprocess_refuses_other_things():
    with refused(TypeError, "image must be a PIL image or a path"):
        mcliplib.get_preprocess("mobileclip_nano")(3)
