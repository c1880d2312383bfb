"""Frozen features of the training pictures, computed once for a few replayable augmentations and kept on disk."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mcliplib.data import Sample
from mcliplib.files import replacing
from mcliplib.reinforce import augment
from mcliplib.reinforce.augment import Augmentation, AugmentSettings
from mcliplib.reinforce.teachers.efficientnet import IMAGE_WIDTH, Frozen

_BATCH = 32


@runtime_checkable
class FrozenTower(Protocol):
    """A frozen image tower: `LiteFeatures`, or a stand-in."""

    tower: Any

    def __call__(self, pixels: Float[Tensor, "b 3 h w"]) -> Frozen:
        """Encode pixels in [0, 1]."""


def image_views(
    features: FrozenTower,
    samples: Sequence[Sample],
    settings: AugmentSettings,
    *,
    views: int,
    seed: int,
    cache: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Float[Tensor, "views n 1664"]:
    """Features of every picture: view 0 is the whole picture, the others are augmented.

    Args:
        features: the frozen image tower.
        samples: pictures.
        settings: of the augmentations; its `size` is the side in pixels that the tower sees.
        views: how many, with the plain one.
        seed: of the augmentations' parameters.
        cache: folder for one file a view, named by everything that it depends on.
        progress: told about once a minute of work.

    Returns:
        float16.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts = []
    for view in range(views):
        file = cache / f"{features.tower.variant}-{_key(features, samples, settings, view, seed)}.npy"
        if not file.is_file():
            progress(f"{features.tower.variant}: view {view + 1} of {views}")
            found = _view(features, samples, settings, view, seed, progress)
            with replacing(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, found.half().numpy())
        parts.append(torch.from_numpy(np.load(file)))
    return torch.stack(parts)


def _view(
    features: FrozenTower,
    samples: Sequence[Sample],
    settings: AugmentSettings,
    view: int,
    seed: int,
    progress: Callable[[str], None],
) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1000 + view)
    drawn = [augment.sample(sample.image.size, generator, settings) if view else Augmentation() for sample in samples]
    found = torch.empty(len(samples), IMAGE_WIDTH)
    for start in range(0, len(samples), _BATCH):
        chosen = range(start, min(start + _BATCH, len(samples)))
        pixels = [augment.apply(samples[i].image, drawn[i], settings.size, settings) for i in chosen]
        found[chosen.start : chosen.stop] = features(torch.stack(pixels)).features
        if start % 2048 == 0 and start:
            progress(f"  {start:,} of {len(samples):,}")
    return found


def _key(features: FrozenTower, samples: Sequence[Sample], settings: AugmentSettings, view: int, seed: int) -> str:
    pictures = hashlib.sha256("".join(str(sample.meta.get("sha256", sample.key)) for sample in samples).encode())
    drawn_from = {**asdict(settings), "seed": seed} if view else {"size": settings.size}
    what = [features.tower.identity(), pictures.hexdigest(), drawn_from, view]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
