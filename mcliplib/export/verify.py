"""Whether an artefact computes what the model computes: the same pictures and texts through both.

An artefact is run by its own runtime, as an `Encoder`: what can be measured of a model can be measured of it.

The inputs are real ones, from the shipped sets, where there are any; else noise, with a warning.
"""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mcliplib.data import Sample, list_datasets, load_samples, shard_paths
from mcliplib.data.reader import read_shards
from mcliplib.errors import MissingFileError, UserError
from mcliplib.evaluate import Retrieval, retrieval
from mcliplib.evaluate.suite import captions_and_pairs
from mcliplib.export.towers import TowerName
from mcliplib.images import PictureError, as_rgb, read_picture
from mcliplib.model import ModelConfig
from mcliplib.preprocess import Preprocess
from mcliplib.search.pictures import list_pictures
from mcliplib.tokenizer import Tokenizer

Runtime = Callable[[np.ndarray], np.ndarray]  # inputs [B, ...] -> features [B, D]
LEAST_COSINE = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.999}
LEAST_AGREEMENT = 0.75  # of int8: pictures that find the same text first
BATCHES = (1, 2, 7, 16)  # some exporters make a graph that takes fewer than 16 at once
_PICTURES = 26
_BATCH = 16
_CALIBRATION = JUDGED = 300  # pictures
_TEXTS = (
    "a photo of a dog",
    "a red flag",
    "two boats in a harbour",
    "an apple",
    "rain over a city",
    "a red 8",
    "é",
    "",
)


class CannotRun(UserError):
    """This machine has no runtime for an artefact; says why."""


class Inputs(NamedTuple):
    """Pictures with captions, and where they are from."""

    samples: list[Sample]
    source: str

    @property
    def images(self) -> list[Image.Image]:
        """The pictures."""
        return [sample.image for sample in self.samples]


class ExportedEncoder:
    """Towers as functions of arrays, with the model's preprocessing and tokenizer.

    Args:
        config: of the model.
        runtimes: tower -> its inputs, float32 pixels [B, 3, H, W] or int64 tokens [B, T] -> features [B, D].
        bytes_in: whether the image tower takes pictures as bytes, [B, height, width, 3].
    """

    def __init__(self, config: ModelConfig, runtimes: Mapping[TowerName, Runtime], *, bytes_in: bool = False) -> None:
        self._runtimes, self._bytes_in = runtimes, bytes_in
        self._preprocess = Preprocess(config.image.image_size, config.pixels)
        self._tokenizer = Tokenizer(config.text.context_length, config.vocab)

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Normalised features [N, D], float32.

        Raises:
            UserError: there is no image tower.
        """
        if self._bytes_in:
            return self._features("image", [np.asarray(as_rgb(image))[None] for image in images])
        parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return self._features("image", [torch.stack([self._preprocess(one) for one in part]).numpy() for part in parts])

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Normalised features [M, D], float32.

        Raises:
            UserError: there is no text tower.
        """
        return self._features("text", [part.numpy() for part in self._tokenizer(texts).split(_BATCH)])

    def _features(self, tower: TowerName, batches: Sequence[np.ndarray]) -> Tensor:
        if tower not in self._runtimes:
            raise UserError(f"this export has no {tower} tower; export it with --tower both")
        run = self._runtimes[tower]
        return torch.from_numpy(np.concatenate([np.asarray(run(batch)) for batch in batches])).float()


def find_inputs(count: int = _PICTURES, *, but: str | None = None) -> Inputs:
    """Some pictures with captions of the shipped evaluation sets; noise where there are none, with a warning.

    Args:
        count: how many at most.
        but: a set not to take them from.
    """
    try:
        for name in list_datasets("eval"):
            if name != but and (samples := list(itertools.islice(read_shards(shard_paths(name)), count))):
                return Inputs(samples, name)
    except MissingFileError:
        pass
    warnings.warn("there is no shipped data set here; the export is verified on generated noise only", stacklevel=2)
    noise = np.random.default_rng(0)
    made = []
    for number in range(count):
        coarse = Image.fromarray(noise.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((280, 200))
        made.append(Sample(f"noise-{number}", coarse, _TEXTS[number % len(_TEXTS)]))
    return Inputs(made, "generated noise")


def calibration_inputs(source: str | Path, count: int = _CALIBRATION) -> Inputs:
    """Pictures to measure ranges on, evenly from a set or a folder.

    Args:
        source: the name of a shipped set, or a folder of pictures (its subfolders too).
        count: how many at most.

    Raises:
        UserError: no such set or folder, or no picture that can be read.
    """
    if not Path(source).is_dir():
        if str(source) not in (sets := list_datasets()):  # so that the set that judges is another one
            raise UserError(f"{source}: is no folder of pictures, and no shipped set; there is {', '.join(sets)}")
        every = load_samples(str(source), side=512)
        return Inputs(every[:: -(-len(every) // count)], str(source))
    paths = list(list_pictures(Path(source))[0])
    samples, unusable = [], 0
    for path in paths[:: max(1, -(-len(paths) // count))]:
        try:
            samples.append(Sample(path, read_picture(Path(source) / path, side=512).image, ""))
        except PictureError:
            unusable += 1
    if not samples:
        raise UserError(f"{source}: holds no picture that can be read; int8 is calibrated on pictures like yours")
    return Inputs(samples, str(source))


def least_cosine(runtime: Runtime, inputs: Sequence[np.ndarray], reference: np.ndarray) -> float:
    """The smallest cosine between an artefact's features and the reference's.

    Args:
        runtime: the artefact.
        inputs: batches, of different sizes.
        reference: features [N, D] of length 1 of all the batches' inputs.

    Returns:
        From -1 to 1; -1 where a feature is not finite.
    """
    features = np.concatenate([runtime(batch) for batch in inputs]).astype(np.float64)
    if features.shape != reference.shape or not np.isfinite(features).all():
        return -1.0
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(reference, axis=1)
    return float(np.min(np.sum(features * reference, axis=1) / np.maximum(lengths, 1e-12)))


def in_batches(inputs: np.ndarray) -> list[np.ndarray]:
    """Inputs [N, ...] in batches of 1, 2, 7, 16, 1, 2, ..."""
    batches, start = list[np.ndarray](), 0
    for size in itertools.cycle(BATCHES):
        if start >= len(inputs):
            return batches
        batches.append(inputs[start : start + size])
        start += size
    raise AssertionError


def check_cosine(cosine: float, precision: str, what: str) -> None:
    """Raises a UserError where the smallest cosine is too far from 1 for a precision."""
    least = LEAST_COSINE.get(precision, -1.0)
    if not cosine >= least:
        raise UserError(
            f"{what}: its features are not PyTorch's (smallest cosine {cosine:.6f}, {precision} needs {least}); "
            f"nothing was written. Try --precision float32"
        )


class Agreement(NamedTuple):
    """How a quantized model ranks, beside the float one.

    Attributes:
        same_first: share of pictures whose first text is the same, in [0, 1].
        float_r1: R@1 of the float model (picture to text, text to picture).
        int8_r1: the same of the quantized one.
        n: pictures.
        source: where they are from.
    """

    same_first: float
    float_r1: tuple[float, float]
    int8_r1: tuple[float, float]
    n: int
    source: str


def agreement(features: tuple[Tensor, Tensor], quantized: tuple[Tensor, Tensor], inputs: Inputs) -> Agreement:
    """Compare the rankings of two models.

    Args:
        features: of the float model, images [N, D] and texts [M, D]; the texts as in `captions_and_pairs`.
        quantized: the same of the other.
        inputs: pictures and captions.
    """
    _, pairs = captions_and_pairs(inputs.samples)
    first, recalls = [], []
    for images, texts in (features, quantized):
        first.append((images @ texts.T).argmax(dim=1))
        found: Retrieval = retrieval(images, texts, pairs)
        recalls.append((float(found.image_to_text[1]), float(found.text_to_image[1])))
    same = (first[0] == first[1]).double().mean().item()
    return Agreement(same, recalls[0], recalls[1], len(first[0]), inputs.source)
