"""Peak memory of the real commands on sets of real sizes: photographs of phones, and a long stream of small pictures.

The pictures are made, the programs are not: each command runs in a process of its own, whose resident set the operating
system tells.
"""

import io
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageChops

from mcliplab.benchmarks.robustness import resident
from mcliplib import images
from mcliplib.data import Sample, load_samples, write_shard
from mcliplib.errors import UserError
from mcliplib.evaluate import Encoder
from mcliplib.images import read_picture
from mcliplib.train.metrics import METRICS_FILE, read_metrics

_PHONES = ((4032, 3024), (4000, 3000), (5712, 4284), (6000, 4500), (8064, 6048))  # 12, 12, 24, 27 and 49 megapixels
_ORIENTATIONS = (1, 6, 8, 3)
_ORIENTATION, _SOFTWARE = 0x0112, 0x0131  # tags of EXIF
_EVERY = 0.5  # seconds between two looks at a process
_PER_SHARD = 2000
_COMPARED = 100  # large photographs, decoded whole and reduced


class Ran(NamedTuple):
    """A command that has ended well."""

    seconds: float
    peak_mb: float  # resident, of the process and its children, at their largest
    curve: list[tuple[float, float]]  # seconds and resident MB


def run_command(arguments: Sequence[str]) -> Ran:
    """Run `mcliplib` with these arguments.

    Raises:
        UserError: it failed; with the end of what it said.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mcliplib", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    curve = list[tuple[float, float]]()
    assert process.stderr is not None
    while process.poll() is None:
        if size := resident(process.pid):  # a process that is ending has none
            curve.append((time.perf_counter() - begun, size / 1e6))
        time.sleep(_EVERY)
    said = process.stderr.read()
    if process.returncode:
        raise UserError(f"mcliplib {' '.join(arguments)}: ended with {process.returncode}: {said[-500:]}")
    return Ran(time.perf_counter() - begun, max((size for _, size in curve), default=0.0), curve)


def make_photos(folder: Path, count: int, progress: Callable[[str], None]) -> None:
    """Photographs as phones store them, of 12 to 49 megapixels, some turned; with a list of captions.

    A tenth of them are made; the others are their copies with another orientation and number in the EXIF data, which
    are as much work to read.
    """
    stored = load_samples("train")
    folder.mkdir(parents=True, exist_ok=True)
    different = max(1, count // 10)
    lines = ["image,caption"]
    for number in range(different):
        sample = stored[number * len(stored) // different]
        image = _photo(sample, _PHONES[number % len(_PHONES)], number)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80, exif=_exif(0))
        for copy in range(number, count, different):
            payload = buffer.getvalue().replace(_exif(0), _exif(copy), 1)
            (folder / f"{copy:05d}.jpg").write_bytes(payload)
            lines.append(f'{copy:05d}.jpg,"{sample.caption}"')
        progress(f"{number + 1} of {different} photographs made")
    (folder / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _exif(number: int) -> bytes:
    """An orientation and a number."""
    exif = Image.Exif()
    exif[_ORIENTATION] = _ORIENTATIONS[number % len(_ORIENTATIONS)]
    exif[_SOFTWARE] = f"{number:08d}"
    return exif.tobytes()


def _photo(sample: Sample, size: tuple[int, int], seed: int) -> Image.Image:
    """The picture at a camera's size, with grain, so that its bytes are as many as a camera's."""
    image = sample.image.resize(size, Image.Resampling.BICUBIC)
    grain = Image.effect_noise((size[0] // 2, size[1] // 2), 30 + seed % 8).resize(size, Image.Resampling.NEAREST)
    return ImageChops.overlay(image, Image.merge("RGB", [grain] * 3))


def measure_photos(folder: Path, count: int, samples: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """From a folder of photographs to a trained model.

    Args:
        folder: for the photographs, the set and the run.
        count: photographs.
        samples: that training sees.
        progress: told of progress.
    """
    make_photos(folder / "photos", count, progress)
    size = sum(path.stat().st_size for path in (folder / "photos").glob("*.jpg"))
    reinforce = (
        f"reinforce --input {folder}/photos --output {folder}/set --captions 0 --augmentations 2 --shard-size 100"
    )
    train = (
        f"train --data {folder}/set --output {folder}/run --reinforced --preset mobileclip_pico --stream --shuffle 200 "
        f"--samples {samples} --batch-size {min(64, count)}"
    )
    values: dict[str, Any] = {"photographs": count, "bytes": size}
    for stage, command in (("reinforce", reinforce), ("train", train)):
        progress(f"{stage} ...")
        ran = run_command(command.split())
        values[stage] = {"seconds": ran.seconds, "peak_mb": ran.peak_mb}
        progress(f"{stage}: {ran.seconds:.0f} s, at most {ran.peak_mb:,.0f} MB")
    return values


@dataclass(frozen=True)
class Reduction:
    """How much a picture's features change where it is decoded at a fraction of its size.

    Attributes:
        cosines: between the features of the whole and of the reduced picture.
    """

    cosines: list[float]


def measure_reduction(folder: Path, encoder: Encoder) -> Reduction:
    """Compare the features of the large photographs in a folder, decoded whole and within the memory bound."""
    cosines: list[float] = []
    bound = images.WHOLE_PIXELS
    for path in sorted(folder.glob("*.jpg")):
        reduced = read_picture(path)
        if reduced.image.size == reduced.size:
            continue
        if len(cosines) == _COMPARED:
            break
        try:
            images.WHOLE_PIXELS = reduced.size[0] * reduced.size[1]
            whole = read_picture(path)
        finally:
            images.WHOLE_PIXELS = bound
        one, other = encoder.encode_images([whole.image, reduced.image])
        cosines.append(float(torch.dot(one, other)))
    return Reduction(cosines)


def make_stream_set(folder: Path, count: int, progress: Callable[[str], None]) -> None:
    """Shards of many small pictures, each with a number's words for a caption."""
    rng = np.random.default_rng(0)
    for first in range(0, count, _PER_SHARD):
        numbers = range(first, min(first + _PER_SHARD, count))
        write_shard(folder / f"{first // _PER_SHARD:06d}.tar", [_small(number, rng) for number in numbers])
    progress(f"{count:,} small pictures made")


def _small(number: int, rng: np.random.Generator) -> tuple[str, dict[str, bytes]]:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((40, 40)).save(buffer, "JPEG")
    return f"n{number:07d}", {"jpg": buffer.getvalue(), "txt": f"picture {number % 1000} of {number // 1000}".encode()}


def measure_stream(folder: Path, count: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """One pass of plain training over a set made for it, and the memory that it takes meanwhile.

    Args:
        folder: for the set and the run.
        count: samples in the set, all seen once.
        progress: told of progress.

    Returns:
        The curve as [samples seen, resident MB], and its growth in MB from the first tenth of the run to the last.
    """
    make_stream_set(folder / "shards", count, progress)
    train = (
        f"train --data {folder}/shards --output {folder}/run --stream --shuffle 2000 --preset mobileclip_pico "
        f"--image-size 32 --context-length 16 --dtype float32 --samples {count} --batch-size 256 --save-every 100"
    )
    ran = run_command(train.split())
    lines = read_metrics(folder / "run" / METRICS_FILE)
    training = lines[-1]["seconds"]
    begun = ran.seconds - training  # imports and the model come first
    curve = [(count * (at - begun) / training, size) for at, size in ran.curve if at > begun]
    tenth = max(1, len(curve) // 10)
    early, late = (float(np.median([size for _, size in part])) for part in (curve[tenth : 2 * tenth], curve[-tenth:]))
    progress(f"{early:,.0f} MB after a tenth of {count:,} samples, {late:,.0f} MB at the end")
    thin = curve[:: max(1, len(curve) // 100)]
    return {
        "samples": count,
        "seconds": ran.seconds,
        "samples_per_second": count / training,
        "peak_mb": ran.peak_mb,
        "early_mb": early,
        "late_mb": late,
        "curve": [[round(seen), round(size, 1)] for seen, size in thin],
    }
