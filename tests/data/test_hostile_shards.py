"""Shards as strangers have them: names that webdataset splits wrongly, and claims and bombs that must stay bounded."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcliplib.data import ReadReport, read_shards
from mcliplib.data import shards as limits
from mcliplib.data.reader import raw_samples
from mcliplib.errors import UserError
from mcliplib.reinforce.sources import find_sources
from tests.data.test_reader import encoded

PNG = encoded()


def tar(path: Path, members: Sequence[tuple[str, bytes]], **options: str) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = dict(options)
            archive.addfile(info, io.BytesIO(content))
    return path


def read(path: Path) -> tuple[list[tuple[str, str]], ReadReport]:
    report = ReadReport()
    return [(one.key, one.caption) for one in read_shards(path, report=report, max_skipped=1.0)], report


def test_names_with_several_dots(tmp_path: Path) -> None:
    members = [
        *[("cat.2.jpg", PNG), ("cat.2.txt", b"two"), ("cat.final.jpg", PNG), ("cat.jpg", PNG), ("cat.txt", b"one")],
        *[("2020.01.02.png", PNG), ("2020.01.02.txt", b"x"), ("2020.01.03.png", PNG), ("2020.01.03.txt", b"y")],
        *[("dir.a/b.json", b"{}"), ("dir.a/b.png", PNG), ("dir.a/b.syn.json", b"{}"), ("dir.a/b.txt", b"z")],
    ]
    found, report = read(tar(tmp_path / "a.tar", members))
    assert found == [("cat", "one"), ("cat.2", "two"), ("2020.01.02", "x"), ("2020.01.03", "y"), ("dir.a/b", "z")]
    assert [(skip.key, skip.reason) for skip in report.skipped] == [("cat.final", "missing caption")]
    keys = [one.key for one in find_sources(tmp_path / "a.tar", 10)[0].read({})]
    assert keys == ["cat", "cat%2E2", "cat%2Efinal", "2020%2E01%2E02", "2020%2E01%2E03", "dir%2Ea%2Fb"]


def test_what_macos_adds_is_ignored(tmp_path: Path) -> None:
    own = [("in/a.png", PNG), ("in/a.txt", b"x"), ("b.png", PNG), ("b.txt", b"y")]
    added = [(f"{place}{name}", b"mac") for place in ("", "in/", "__MACOSX/in/") for name in ("._a.png", ".DS_Store")]
    mixed = [one for pair in zip(own, added, strict=False) for one in pair] + added + [("__MACOSX/in/a.png", b"mac")]
    found, report = read(tar(tmp_path / "a.tar", mixed))
    assert (found, report.skipped) == ([("in/a", "x"), ("b", "y")], [])


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [("a, b ,", ["a", "b"]), (["a", 5, None], ["a", "5"]), (7, ["7"]), (None, []), ({"a": 1}, []), (["a"], ["a"])],
)
def test_keywords_as_people_write_them(tmp_path: Path, keywords: object, expected: list[str]) -> None:
    meta = json.dumps({"keywords": keywords}).encode()
    path = tar(tmp_path / "a.tar", [("a.json", meta), ("a.png", PNG), ("a.txt", b"x")])
    assert [one.meta["keywords"] for one in read_shards(path)] == [expected]


@pytest.mark.parametrize("meta", [b"[" * 100_000, b'{"a": NaN}', b'{"a": 1' + b"0" * 5000 + b"}", b"\xff", b"1e999"])
def test_metadata_that_breaks_readers_is_counted(tmp_path: Path, meta: bytes) -> None:
    good = [("b.png", PNG), ("b.txt", b"y")]
    path = tar(tmp_path / "a.tar", [("a.json", meta), ("a.png", PNG), ("a.txt", b"x"), *good])
    found, report = read(path)
    assert (found, report.reasons) == ([("b", "y")], {"bad metadata": 1})


def test_members_that_are_too_large_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = [("a.png", PNG), ("a.txt", b"x" * ((4 << 20) + 1)), ("b.png", PNG), ("b.txt", b"y")]
    found, report = read(tar(tmp_path / "a.tar", big))
    assert (found, report.reasons) == ([("b", "y")], {"file of more than 4 MiB": 1})
    monkeypatch.setattr("mcliplib.data.reader.MAX_MEMBER", len(PNG) - 1)
    assert {one.fault for one in find_sources(tmp_path / "a.tar", 10)[0].read({})} == {"file of more than 0 MiB"}


def small_memory(path: Path, limit: int = 1 << 30) -> str:
    """What reading the shard says, in a process that may have little more memory than it needs to start."""
    code = (
        "import resource, sys; from mcliplib.data import ReadReport, read_shards\n"
        "import psutil; used = psutil.Process().memory_info().vms\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {limit},) * 2)\n"
        "report = ReadReport()\n"
        "try: list(read_shards(sys.argv[1], report=report, max_skipped=1.0)); print(report)\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def zeros(size: int, start: bytes = b"") -> bytes:
    """Gzip of these bytes and many zeros, made quickly: a stream may have many parts."""
    part = gzip.compress(bytes(16 << 20), mtime=0)
    return gzip.compress(start, mtime=0) + part * (size >> 24)


GOOD = b"".join(
    header(name, len(content)) + content + bytes(-len(content) % 512)
    for name, content in (("k.png", PNG), ("k.txt", b"x"))
)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, b"Z", tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("bomb", [False, True])
def test_claims_and_bombs(tmp_path: Path, kind: bytes, bomb: bool) -> None:
    start = GOOD + header("bomb.png", 9 << 30, kind)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(zeros(10 << 30, start) if bomb else gzip.compress(start + bytes(1024)))
    told = small_memory(path)
    assert "1 samples read" in told
    assert "is broken: the archive breaks off" in told


def test_a_bomb_behind_the_end_and_a_second_archive(tmp_path: Path) -> None:
    bomb = tmp_path / "a.tar.gz"
    bomb.write_bytes(zeros(10 << 30, GOOD + bytes(1024)))
    assert "1 samples read; " in small_memory(bomb)
    whole = tar(tmp_path / "b.tar", [("a.png", PNG), ("a.txt", b"x")])
    whole.write_bytes(whole.read_bytes() * 2)
    found, report = read(whole)
    assert found == [("a", "x")]
    assert "data behind the archive's end" in report.broken_shards[str(whole)]


@pytest.mark.parametrize("size", ["9223372036854775807", "-5", "-512", "1e9", "99999999999999999999999"])
def test_sizes_that_pax_headers_claim(tmp_path: Path, size: str) -> None:
    path = tar(tmp_path / "a.tar", [("a.png", PNG), ("a.txt", b"x")], size=size)
    assert "a.tar" in small_memory(path) or "samples" in small_memory(path)


def test_nested_gzip_is_no_shard(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar", [("a.png", PNG), ("a.txt", b"x")])
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(gzip.compress(whole.read_bytes())))
    with pytest.raises(UserError, match="not a readable tar shard"):
        read(tmp_path / "b.tar.gz")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_headers_end_in_a_message(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    content = bytearray(tar(path, [("a.png", PNG), ("a.txt", b"x"), ("b.png", PNG), ("b.txt", b"y")]).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 511)) + 512 * data.draw(st.sampled_from([0, 2, 4]))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(bytes(content))
    try:
        for _ in raw_samples(str(path), {}):
            pass
    except UserError:
        pass


def test_the_limits_are_what_messages_say() -> None:
    assert (limits.MAX_MEMBER, limits.MAX_TEXT) == (256 << 20, 4 << 20)
