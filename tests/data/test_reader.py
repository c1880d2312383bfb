"""Every fault a shard can have: an error that names the cure, or a skip that is counted."""

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mcliplib.data import ReadReport, Sample, read_shards, write_shard
from mcliplib.errors import UserError


def encoded(size: tuple[int, int] = (16, 12), mode: str = "RGB", colour: object = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def good(number: int) -> tuple[str, dict[str, bytes]]:
    meta = json.dumps({"uid": f"s{number:03d}"}).encode()
    return f"s{number:03d}", {"png": encoded(), "txt": f"picture {number}".encode(), "json": meta}


def shard_with(tmp_path: Path, faults: dict[int, dict[str, bytes | None]], count: int = 20) -> Path:
    samples = []
    for number in range(count):
        key, members = good(number)
        for extension, content in faults.get(number, {}).items():
            members.pop(extension, None)
            if content is not None:
                members[extension] = content
        samples.append((key, members))
    return write_shard(tmp_path / "shard.tar", samples)


def read(path: Path, **options: object) -> tuple[list[Sample], ReadReport]:
    report = ReadReport()
    return list(read_shards(path, report=report, **options)), report


def test_good_shard(tmp_path: Path) -> None:
    samples, report = read(shard_with(tmp_path, {}))
    assert report.read == len(samples) == 20
    assert not report.skipped
    assert not report.broken_shards
    assert samples[3].key == "s003"
    assert samples[3].caption == "picture 3"
    assert samples[3].meta["uid"] == "s003"
    assert samples[3].image.mode == "RGB"
    assert samples[3].image.size == (16, 12)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"png": b"not an image"}, "corrupt image"),
        ({"png": encoded((40, 40))[:60]}, "corrupt image"),
        ({"png": None}, "missing image"),
        ({"txt": None}, "missing caption"),
        ({"txt": b"  \n"}, "missing caption"),
        ({"json": b"{"}, "bad metadata"),
        ({"json": b"[1]"}, "bad metadata"),
        ({"png": encoded((200, 200))}, "giant image"),
    ],
)
def test_one_bad_sample_is_skipped_and_named(tmp_path: Path, fault: dict[str, bytes | None], reason: str) -> None:
    path = shard_with(tmp_path, {7: fault})
    samples, report = read(path, max_pixels=10_000)
    assert len(samples) == 19
    assert "s007" not in {sample.key for sample in samples}
    assert [(skip.shard, skip.key, skip.reason) for skip in report.skipped] == [(str(path), "s007", reason)]
    assert "s007" in str(report)


def test_truncated_pixels_are_corrupt(tmp_path: Path) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    path = shard_with(tmp_path, {0: {"png": None, "jpg": buffer.getvalue()[: len(buffer.getvalue()) // 2]}})
    _, report = read(path)
    assert report.reasons == {"corrupt image": 1}


def test_a_giant_image_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard_with(tmp_path, {0: {"png": encoded((300, 300))}})
    loaded: list[tuple[int, int]] = []
    from PIL import PngImagePlugin

    original = PngImagePlugin.PngImageFile.load

    def load(self: PngImagePlugin.PngImageFile) -> object:
        loaded.append(self.size)
        return original(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    _, report = read(path, max_pixels=50_000)
    assert report.reasons == {"giant image": 1}
    assert (16, 12) in loaded
    assert (300, 300) not in loaded


def test_too_many_skips_are_an_error(tmp_path: Path) -> None:
    path = shard_with(tmp_path, {number: {"txt": None} for number in range(3)})
    with pytest.raises(UserError, match=r"15%.*missing caption.*s000"):
        read(path)
    samples, _ = read(path, max_skipped=0.2)
    assert len(samples) == 17


def test_skips_without_a_report_warn(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1 skipped: missing caption"):
        assert len(list(read_shards(shard_with(tmp_path, {1: {"txt": None}})))) == 19


def test_missing_shard_names_file_and_cure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.tar.*mcliplib data build"):
        read(tmp_path / "nowhere.tar")


def test_not_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "text.tar"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(UserError, match=r"text\.tar.*fetch or build it again"):
        read(path)


def test_alpha_is_put_on_white(tmp_path: Path) -> None:
    clear = encoded(mode="RGBA", colour=(0, 0, 0, 0))
    half = encoded(mode="RGBA", colour=(255, 0, 0, 128))
    samples, _ = read(shard_with(tmp_path, {0: {"png": clear}, 1: {"png": half}}))
    assert samples[0].image.getpixel((0, 0)) == (255, 255, 255)
    assert samples[1].image.getpixel((0, 0)) == (255, 127, 127)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.05, 0.999), packed=st.booleans())
def test_truncated_shard_keeps_what_was_readable(tmp_path: Path, share: float, packed: bool) -> None:
    whole = write_shard(tmp_path / ("whole.tar.gz" if packed else "whole.tar"), [good(number) for number in range(20)])
    content = whole.read_bytes()
    if not packed:
        content = content[: content.rstrip(b"\0").__len__() + 2 * 512]  # tar pads to 10 kB; cut inside the archive
    cut = tmp_path / ("cut.tar.gz" if packed else "cut.tar")
    cut.write_bytes(content[: int(share * len(content))])
    report = ReadReport()
    samples: list[Sample] = []
    try:
        samples += read_shards(cut, report=report)
    except UserError:  # only where nothing at all could be read
        assert report.read == 0
        return
    assert list(report.broken_shards) == [str(cut)]
    assert not report.skipped
    assert [sample.key for sample in samples] == [f"s{number:03d}" for number in range(len(samples))]
    assert all(sample.caption == f"picture {number}" for number, sample in enumerate(samples))
    assert len(samples) < 20 or share > 0.9


def test_the_next_shard_is_read_after_a_broken_one(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a.tar.gz", [good(number) for number in range(20)])
    second = write_shard(tmp_path / "b.tar.gz", [good(number) for number in range(20, 40)])
    first.write_bytes(first.read_bytes()[:-40])
    report = ReadReport()
    keys = [sample.key for sample in read_shards([first, second], report=report)]
    assert keys[-20:] == [f"s{number:03d}" for number in range(20, 40)]
    assert list(report.broken_shards) == [str(first)]


def test_shards_are_deterministic_and_atomic(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "one.tar.gz", [good(number) for number in range(5)])
    two = write_shard(tmp_path / "two.tar.gz", [good(number) for number in range(5)])
    assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress(one.read_bytes())[:4] == b"s000"

    def failing() -> object:
        yield good(0)
        raise RuntimeError("stop")

    before = one.read_bytes()
    with pytest.raises(RuntimeError):
        write_shard(one, failing())
    assert one.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"one.tar.gz", "two.tar.gz"}
    with pytest.raises(ValueError, match="dot"):
        write_shard(one, [("a.b", {"txt": b""})])
