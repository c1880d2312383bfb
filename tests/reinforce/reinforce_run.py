"""A run that takes seconds: two tiny teachers, a captioner, pictures of noise."""

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcliplib import reinforce
from mcliplib.data import write_shard
from mcliplib.reinforce import ReinforceSettings
from mcliplib.reinforce.manifest import made_with


@dataclass
class TinyTeacher:
    """A fixed random linear map of small pictures; of the words' hashes. Deterministic, and aware of batches."""

    name: str
    dim: int
    image_size: int
    delay: float = 0.0
    identity: dict[str, str] = field(default_factory=lambda: {"version": "1"})

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.dim)
        self._map = torch.randn(3 * 8 * 8, self.dim, generator=generator)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        assert pixels.shape[1:] == (3, self.image_size, self.image_size)
        assert 0 <= pixels.min() <= pixels.max() <= 1
        time.sleep(self.delay)
        small = torch.nn.functional.adaptive_avg_pool2d(pixels, 8).flatten(1) - 0.5
        return torch.nn.functional.normalize(small @ self._map + 1e-3, dim=1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            digests = [hashlib.sha256(word.encode()).digest() for word in text.split()]
            rows.append(np.mean([np.frombuffer(digest * 6, np.uint8) for digest in digests], axis=0) / 255 - 0.5)
        return torch.nn.functional.normalize(torch.tensor(np.array(rows), dtype=torch.float32) @ self._map, dim=1)


@dataclass
class TinyCaptioner:
    name: str = "tiny"
    identity: dict[str, str] = field(default_factory=lambda: {"version": "1"})

    def caption(self, images: Sequence[Image.Image], keys: Sequence[str], count: int, seed: int) -> list[list[str]]:
        return [
            [f"a {image.width} by {image.height} picture {key} {seed} {number}" for number in range(count)]
            for image, key in zip(images, keys, strict=True)
        ]


TEACHERS = (TinyTeacher("one", 24, 32), TinyTeacher("two", 40, 48))
SETTINGS = ReinforceSettings(augmentations=3, captions=2, batch_size=12, threads=1)


def picture(number: int, image_format: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, image_format, lossless=True)
    return buffer.getvalue()


def sample(number: int, **changes: bytes | None) -> tuple[str, dict[str, bytes]]:
    members = {
        "webp": picture(number, "WEBP"),
        "txt": f"picture of number {number}".encode(),
        "json": json.dumps({"uid": f"u{number}", "url": f"http://x/{number}", "licence": "CC0"}).encode(),
        **changes,
    }
    return f"s{number:04d}", {name: content for name, content in members.items() if content is not None}


def write_input(folder: Path, shards: int = 4, size: int = 10) -> list[Path]:
    return [
        write_shard(folder / f"in-{shard}.tar", [sample(shard * size + number) for number in range(size)])
        for shard in range(shards)
    ]


def go(input: Any, output: Any, **changes: Any) -> reinforce.RunResult:
    options = {"teachers": TEACHERS, "captioner": TinyCaptioner(), "settings": SETTINGS, "progress": False}
    return reinforce.run(input, output, **{**options, **changes})


def contents(folder: Path) -> dict[str, str]:
    """Name -> hash of every file, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_output(folder: Path) -> dict[str, reinforce.ReinforcedSample]:
    """Key -> sample, in order; keys must not repeat."""
    augment = made_with(manifest(folder)).augment
    raw: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                assert extension not in raw.setdefault(key, {})
                raw[key][extension] = archive.extractfile(member).read()
    return {key: reinforce.from_members(key, members, augment, (24, 40)) for key, members in raw.items()}


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def resume_slowly(input: str, output: str) -> None:
    """In a process of its own, to be killed."""
    go(input, output, teachers=[replace(one, delay=0.004) for one in TEACHERS], resume=True, workers=2)
