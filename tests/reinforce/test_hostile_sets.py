"""Stored reinforced shards that are damaged, blank or lie about their size: such samples are counted and left out."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mcliplib import reinforce
from mcliplib.data import ReadReport, write_shard
from mcliplib.errors import UserError
from mcliplib.reinforce import ReinforcedSample, read_reinforced
from mcliplib.reinforce.archives import load_npy
from mcliplib.reinforce.sample import unpack
from tests.reinforce.reinforce_run import go, picture, sample, write_input

Stored = list[tuple[str, dict[str, bytes]]]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A reinforced sample's members."""
    folder = tmp_path_factory.mktemp("hostile")
    write_input(folder / "in", shards=1, size=2)
    go(folder / "in", folder / "set")
    found: Stored = []
    with tarfile.open(folder / "set/shard-000000.tar") as archive:
        for member in archive:
            key, _, extension = member.name.partition(".")
            if not found or found[-1][0] != key:
                found.append((key, {}))
            found[-1][1][extension] = archive.extractfile(member).read()
    return found


def reasons(tmp_path: Path, stored: Stored, **changes: bytes) -> Mapping[str, int]:
    """What is said of the first sample with these members instead; the second must be read."""
    (key, members), other = stored
    path = write_shard(
        tmp_path / "x.tar", [(key, members | {k.replace("_", "."): v for k, v in changes.items()}), other]
    )
    report = ReadReport()
    assert [one.key for one in read_reinforced(path, report=report, max_skipped=1.0)] == [other[0]]
    return report.reasons


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"txt": b""}, "missing caption"),
        ({"txt": b" \n\t"}, "missing caption"),
        ({"webp": b""}, "corrupt image"),
        ({"webp": b"<html>"}, "corrupt image"),
        ({"syn_json": b'{"syn_text": ["\\ud800", "x"]}'}, "syn.json: syn_text holds half of a surrogate pair"),
        ({"syn_json": b"[" * 100_000}, "syn.json: is not JSON"),
        ({"paug_json": b'{"param_aug": NaN}'}, "paug.json: is not JSON"),
        ({"json": b'{"uid": 1}'}, "json: uid must be a string"),
    ],
)
def test_a_bad_sample_is_counted(tmp_path: Path, stored: Stored, changes: dict[str, bytes], reason: str) -> None:
    assert reasons(tmp_path, stored, **changes) == {reason: 1}


def npz(**arrays: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy_claiming(shape: str, version: int = 1) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + bytes(64)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    "shape", ["(1000000, 1000000)", "(10000000000,)", "(4294967296, 4294967296)", "(-1, 4)", "(-4, -4)", "(1e3,)", "{}"]
)
def test_headers_that_claim_too_much(shape: str, version: int) -> None:
    with pytest.raises((ValueError, TypeError)):
        load_npy(npy_claiming(shape, version))
    with pytest.raises(UserError, match="here"):
        unpack("npz", npz(image_emb=npy_claiming(shape, version), text_emb=npy_claiming(shape, version)), "here")


def torch_file(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return gzip.compress(buffer.getvalue(), 1)


@pytest.mark.parametrize(
    ("extension", "content"),
    [
        ("npz", npz(image_emb=bytes(100 << 20))),
        ("npz", npz(**{f"a{number}_emb": bytes(7 << 20) for number in range(10)})),
        ("pth.gz", torch_file({name: torch.ones(1).expand(10**6, 10**6) for name in ("image_emb", "text_emb")})),
        ("pth.gz", torch_file({name: torch.ones(1).expand(1, 10**12) for name in ("image_emb", "text_emb")})),
        ("pth.gz", torch_file({"image_emb": torch.zeros(30 << 20)})),
        ("pth.gz", torch_file([1])),
        ("pth.gz", gzip.compress(gzip.compress(bytes(100 << 20)))),
        ("pth.gz", gzip.compress(bytes(100 << 20))),
    ],
)
def test_embeddings_that_inflate(extension: str, content: bytes) -> None:
    with pytest.raises(UserError, match="here"):
        unpack(extension, content, "here")


def test_pictures_are_joined_whatever_form_their_keys_have(tmp_path: Path) -> None:
    """Keys with dots and folders get another form in a reinforced set; the pictures' shards keep theirs."""
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for number, name in enumerate(["dir/a", "b.1", "b.2", "dir.x/c"]):
            for extension, content in (("png", picture(number)), ("txt", b"caption %d" % number)):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    go(tmp_path / "in.tar", tmp_path / "set")
    whole = list(read_reinforced(tmp_path / "set/shard-000000.tar"))
    assert [one.key for one in whole] == ["dir%2Fa", "b%2E1", "b%2E2", "dir%2Ex%2Fc"]
    bare = [(one.key, reinforce.to_members(replace(one, image=None, caption=None))) for one in reversed(whole)]
    write_shard(tmp_path / "bare.tar", bare)
    for images in (tmp_path / "in.tar", tmp_path / "set/shard-000000.tar"):
        joined: list[ReinforcedSample] = list(read_reinforced(tmp_path / "bare.tar", images=images))
        assert [(one.key, one.image, one.caption) for one in joined] == [
            (one.key, one.image, one.caption) for one in reversed(whole)
        ]


def test_arrays_of_other_versions_are_read() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for version in ((1, 0), (2, 0), (3, 0)):
        np.lib.format.write_array(buffer := io.BytesIO(), array, version=version)
        assert np.array_equal(load_npy(buffer.getvalue()), array)


def test_the_sample_is_whole(stored: Stored) -> None:
    assert [key for key, _ in stored] == [sample(number)[0] for number in range(2)]
    assert json.loads(stored[0][1]["json"])["uid"] == "u0"
