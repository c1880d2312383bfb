"""The builder: deterministic on a small slice, and clear when something is missing. The slice needs the packages."""

import hashlib
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mcliplab.datasets import packages
from mcliplab.datasets.cards import members
from mcliplab.datasets.draft import (
    Draft,
    ascii_name,
    fit_square,
    make_draft,
    render_svg,
    same_words,
    shorter_side,
    trimmed,
)
from mcliplab.datasets.leaks import without_leaks, without_repetitions
from mcliplab.datasets.openclipart import _title
from mcliplab.datasets.qrc import ResourceFile
from mcliplib.cli import main
from mcliplib.data import read_shards
from mcliplib.data.registry import data_root
from mcliplib.data.shards import write_shard
from mcliplib.errors import UserError

CIRCLE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><circle cx="5" cy="5" r="4" fill="{}"/></svg>'
STAR = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><path d="M5 0L7 9L0 3H10L3 9Z" fill="{}"/></svg>'


def draft(key: str, svg: str, colour: str) -> Draft:
    return make_draft(key, render_svg(svg.format(colour), 72), key, drawing=True, licence="MIT")


def test_leaks_and_repetitions_are_dropped() -> None:
    train = [draft("red circle", CIRCLE, "red"), draft("star", STAR, "gold")]
    evaluation = [draft("blue circle", CIRCLE, "blue"), draft("crimson circle", CIRCLE, "#f00808")]
    assert [one.key for one in without_leaks(evaluation, train)] == ["blue-circle"]
    assert [one.key for one in without_repetitions([*train, *train])] == ["red-circle", "star"]


def test_drafts_are_deterministic(tmp_path: Path) -> None:
    shards = []
    for number in range(2):
        drafts = [draft("red circle", CIRCLE, "red"), draft("star", STAR, "gold")]
        shards.append(write_shard(tmp_path / f"{number}.tar.gz", [(one.key, members(one)) for one in drafts]))
    assert shards[0].read_bytes() == shards[1].read_bytes()


def source_folders() -> list[Path]:
    named = os.environ.get("MCLIPLIB_SOURCES")
    return [Path(part) for part in named.split(os.pathsep)] if named else [data_root() / ".cache"]


def test_a_slice_of_a_set_rebuilds_to_the_shipped_bytes(tmp_path: Path) -> None:
    """Twenty Noto emoji drawn anew are the shipped ones, byte for byte."""
    from mcliplab.datasets import emoji

    needed = [packages.BY_SHORT[name] for name in ("emojibase", "noto")]
    if not all(any(list(folder.rglob(package.file)) for folder in source_folders()) for package in needed):
        pytest.skip("the source packages are not on this machine: set MCLIPLIB_SOURCES to their folders")
    names, noto = (packages.obtain(package, tmp_path, source_folders()) for package in needed)
    drawn = list(emoji.drafts("noto", noto, emoji.concepts(names)[300:320], "Apache-2.0"))
    assert len(drawn) == 20
    shipped = {sample.key: sample for sample in read_shards(data_root() / "emoji-noto/shard-000000.tar.gz")}
    met = 0
    for one in drawn:
        if one.key in shipped:
            met += 1
            assert shipped[one.key].meta["sha256"] == hashlib.sha256(one.payload).hexdigest()
            assert shipped[one.key].caption == one.caption
    assert met >= 10


def test_missing_package_wrong_checksum_missing_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noto = packages.BY_SHORT["noto"]
    with pytest.raises(UserError, match=r"iconify-json-noto-1\.2\.9\.tgz is not in .*--sources"):
        packages.obtain(noto, tmp_path / "cache", [tmp_path])
    (tmp_path / noto.file).write_bytes(b"other")
    with pytest.raises(UserError, match=r"SHA-256.*delete it and fetch"):
        packages.obtain(noto, tmp_path / "cache", [tmp_path])
    absent = replace(noto, client="npm", file="other.tgz")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="'npm' is not installed"):
        packages.obtain(absent, tmp_path / "cache")


def test_a_failing_client_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "npm"
    fake.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(UserError, match=r"npm pack .*noto@1\.2\.9.*no network.*--sources"):
        packages.obtain(packages.BY_SHORT["noto"], tmp_path / "cache")


def test_build_reports_missing_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["data", "build", "--sources", str(tmp_path / "empty"), "--output", str(tmp_path / "out")]) == 2
    assert "gcompris-qt-data_3.1-2_all.deb is not in" in capsys.readouterr().err


def test_resvg_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(UserError, match="pip install"):
        render_svg(CIRCLE.format("red"), 72)


def test_fitting() -> None:
    wide = Image.new("RGB", (200, 50), "black")
    square = fit_square(wide, 72)
    assert square.size == (72, 72)
    assert square.getpixel((36, 36)) == (0, 0, 0)
    assert square.getpixel((36, 5)) == (255, 255, 255)
    assert shorter_side(wide, 96).size == (192, 96)
    assert shorter_side(Image.new("RGB", (300, 200)), 96).size == (144, 96)
    page = Image.new("RGB", (100, 100), "white")
    page.paste("red", (70, 70, 90, 90))
    assert trimmed(page).size == (22, 22)
    assert trimmed(Image.new("RGB", (30, 30), "white")).size[0] >= 30


def test_names() -> None:
    assert ascii_name("Château d’If_2.png") == "chateau-dif-2-png"
    assert same_words("A banana.") == same_words("Banana") == "banana"
    assert same_words("Some cherries.") == "cherries"


@pytest.mark.parametrize(
    ("title", "description", "stem", "caption"),
    [
        ("Clipart by Nicu Buculei - piggybank", "", "lightsabers", "lightsabers"),
        ("AIGA_Symbol_Signs", "", "aiga_waiting_room1", "waiting room"),
        ("guitar1", "electric guitar", "guitar_jarno", "electric guitar"),
        ("Blueberry Muffin (B and W)", "Blueberry Muffin", "muffin3_bw", "Blueberry Muffin"),
        ("tree - RPG map elements", "", "tree_09", "tree"),
        ("Various Cliparts", "", "rosa1", None),
        ("Part of the Flat Icon Collection (Wed Aug 25 2004)", "", "filenew", None),
        ("", "", "x", None),
    ],
)
def test_openclipart_titles(title: str, description: str, stem: str, caption: str | None) -> None:
    assert _title(title, description, stem) == caption


def resource(version: int, content: bytes, flags: int) -> bytes:
    """A resource file of one file `/a` as Qt's compiler writes it."""
    size = 22 if version >= 2 else 14
    extra = b"\0" * (size - 14)
    tree = struct.pack(">IHII", 0, 2, 1, 1) + extra + struct.pack(">IHHHI", 0, flags, 0, 0, 0) + extra
    blob = struct.pack(">I", len(content)) + zlib.compress(content) if flags & 1 else content
    data = struct.pack(">I", len(blob)) + blob
    names = struct.pack(">HI", 1, 0) + "a".encode("utf-16-be")
    header = 4 + 16
    places = (version, header, header + len(tree), header + len(tree) + len(data))
    return b"qres" + struct.pack(">4I", *places) + tree + data + names


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("flags", [0, 1])
def test_resource_files(tmp_path: Path, version: int, flags: int) -> None:
    path = tmp_path / "one.rcc"
    path.write_bytes(resource(version, b"hello" * 10, flags))
    assert dict(ResourceFile(path).files()) == {"/a": b"hello" * 10}
    path.write_bytes(resource(version, b"hello", 4))
    with pytest.raises(UserError, match="zstd"):
        dict(ResourceFile(path).files())
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a Qt resource file"):
        ResourceFile(path)
