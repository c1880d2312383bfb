"""Killed processes, damaged and foreign files: what was done stays, and one clear line says the cure."""

import json
import signal
import subprocess
import sys

import pytest

from mcliplib.errors import UserError
from mcliplib.search import Index
from mcliplib.search.models import Embedder

_KILLED = """
import os, signal, sys
import mcliplib.search.index as module

module._BATCH = module._SAVE = 4
if sys.argv[2] == "reading":
    def progress(what, done, total):
        if done >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
else:  # the third file's content is there, its name not yet: the index's own, the first chunk, then this one
    progress, times, real = None, [], os.fsync
    def fsync(number):
        real(number)
        times.append(number)
        if len(times) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    os.fsync = fsync
module.Index.build("student", sys.argv[1], progress=progress)
"""


@pytest.mark.parametrize(("when", "kept"), [("reading", 8), ("writing", 4)])
def test_killed_while_indexing_it_goes_on(photos, counted, when, kept):
    done = subprocess.run([sys.executable, "-c", _KILLED, str(photos), when], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(Index.open(photos)) == kept, "what was done stays, and can be asked"
    index = Index.build("student", photos)
    assert counted.take() == (12 - kept, 12 - kept)
    assert index.report == (12 - kept, 0, 0, ())
    assert len({one.path for one in index.query("a bird", k=99)}) == 12
    assert [one.name for one in index.path.glob(".unfinished*")] == []


def test_a_vanished_chunk_is_made_again(photos, counted):
    index = Index.build("student", photos)
    hits = index.query("a bird")
    next(index.path.glob("0*")).unlink()
    counted.take()
    assert index.update() == (12, 0, 0, ())
    assert counted.take() == (12, 12)
    assert [one.path for one in index.query("a bird")] == [one.path for one in hits]


def _end(content: bytes) -> bytes:
    return content[:-7]


def _middle(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": _end,
    "longer": lambda content: content + b"\0" * 8,
    "one bit": _middle,
    "names": lambda content: content.replace(b"00.webp", b"..webp/"),
    "no safetensors": lambda content: b"PK\3\4 a zip of something",
    "a huge header": lambda content: (1 << 62).to_bytes(8, "little") + content[8:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_chunk_is_named_with_its_cure(photos, damage):
    index = Index.build("student", photos)
    path = next(index.path.glob("0*"))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for use in (lambda: Index.open(photos).query("a bird"), lambda: Index.build(None, photos)):
        with pytest.raises(UserError, match=r"000000\.safetensors: .*remove this file") as caught:
            use()
        assert "\n" not in str(caught.value)
    path.unlink()
    assert Index.build(None, photos).report == (12, 0, 0, ())


def test_a_chunk_of_another_index_is_named(photos, tmp_path):
    mine = Index.build("student", photos)
    other = Index.build("student", photos, path=tmp_path / "other", dtype="int8")
    path = next(mine.path.glob("0*"))
    path.write_bytes(next(other.path.glob("0*")).read_bytes())
    with pytest.raises(UserError, match="part of another index"):
        Index.open(photos).query("a bird")
    foreign = Index.build("random:mobileclip_pico", photos, path=tmp_path / "foreign")
    path.write_bytes(next(foreign.path.glob("0*")).read_bytes())
    with pytest.raises(UserError, match="part of another index"):
        Index.open(photos).query("a bird")


def test_a_chunk_that_is_there_twice_gives_no_picture_twice(photos):
    index = Index.build("student", photos)
    path = next(index.path.glob("0*"))
    (index.path / "000001.safetensors").write_bytes(path.read_bytes())
    index.update()
    assert len(index.query("a bird", k=99)) == len(index) == 12


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"{", b"\xff\xfe", b'{"format": "mcliplib-search 2"}', b"null" * 1000, b"[" * 100_000],
)
def test_a_damaged_or_foreign_description_is_named_with_its_cure(photos, content):
    index = Index.build("student", photos)
    (index.path / "index.json").write_bytes(content)
    for use in (lambda: Index.open(photos), lambda: Index.build("student", photos)):
        with pytest.raises(UserError, match=r"index\.json: .*--rebuild"):
            use()
    assert Index.build("student", photos, rebuild=True).report == (12, 0, 0, ())


@pytest.mark.parametrize(("name", "value"), [("dtype", "float16"), ("dim", "192"), ("dim", 64), ("sha256", 5)])
def test_a_description_with_a_wrong_value_is_named(photos, name, value):
    path = Index.build("student", photos).path / "index.json"
    about = json.loads(path.read_text())
    (about if name in about else about["model"])[name] = value
    path.write_text(json.dumps(about))
    for query in ("a bird", photos / "00.webp"):
        with pytest.raises(UserError, match=r"index\.json|000000\.safetensors|was made by"):
            Index.open(photos).query(query)


def test_there_is_no_index(photos, tmp_path):
    with pytest.raises(UserError, match="holds no index; build one"):
        Index.open(photos)
    with pytest.raises(UserError, match="no such folder"):
        Index.build("student", tmp_path / "gone")


def test_two_runs_do_not_write_at_once(photos, monkeypatch):
    index = Index.build("student", photos)
    met = []

    def images(self, images):
        with pytest.raises(UserError, match="another run writes here"):
            Index.build("student", photos)
        met.append(Index.open(photos).query(photos / "00.webp", k=1) if not met else None)  # who reads need not wait
        return real(self, images)

    real = Embedder.images
    (photos / "00.webp").rename(photos / "renamed.webp")
    (photos / "00.webp").write_bytes((photos / "renamed.webp").read_bytes())
    monkeypatch.setattr(Embedder, "images", lambda self, images: images_once(self, images))

    def images_once(self, given):
        monkeypatch.setattr(Embedder, "images", real)
        return images(self, given)

    index.update()
    assert met
    assert met[0] is not None
