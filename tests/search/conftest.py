"""Real pictures in a folder, and the shipped student."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mcliplib.data import shard_paths
from mcliplib.data.reader import raw_samples
from mcliplib.search.models import Embedder


@pytest.fixture(scope="session")
def contents() -> list[bytes]:
    """Animals' pictures, encoded."""
    members = [one for path in shard_paths("gcompris-animals") for _, one in raw_samples(str(path), {})]
    return [one["webp"] for one in members][:40]


@pytest.fixture(scope="session")
def put() -> Callable[[Path, bytes], Path]:
    """Write a file that has not changed for long."""

    def put(path: Path, content: bytes, mtime: int = 1_600_000_000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (mtime, mtime))
        return path

    return put


@pytest.fixture
def photos(tmp_path: Path, contents: list[bytes], put) -> Path:
    """Twelve pictures, some of them deeper."""
    for number, content in enumerate(contents[:12]):
        put(tmp_path / "photos" / ("deeper" if number % 3 else ".") / f"{number:02d}.webp", content)
    return tmp_path / "photos"


class Counted:
    """What was decoded and embedded since it was last asked."""

    def __init__(self) -> None:
        self.opened = self.embedded = 0

    def take(self) -> tuple[int, int]:
        taken = self.opened, self.embedded
        self.opened = self.embedded = 0
        return taken


@pytest.fixture
def counted(monkeypatch) -> Counted:
    count, real_open, real_images = Counted(), Embedder.open, Embedder.images

    def opened(self, content):
        count.opened += 1
        return real_open(self, content)

    def images(self, images):
        count.embedded += len(images)
        return real_images(self, images)

    monkeypatch.setattr(Embedder, "open", opened)
    monkeypatch.setattr(Embedder, "images", images)
    return count
