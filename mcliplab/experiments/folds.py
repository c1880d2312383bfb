"""Pictures dealt into folds, so that a teacher can learn from all but those that it teaches."""

from collections.abc import Sequence

from mcliplab.experiments.noise import part_of_one
from mcliplib.data import Sample

MOST_FOLDS = 64


def fold_of(key: str, folds: int) -> int:
    """The fold of a picture, by a stable hash of its key: drawings of one concept fall into several."""
    return int(part_of_one("fold", key) * folds)


def outside(samples: Sequence[Sample], fold: int, folds: int) -> list[Sample]:
    """The pictures that a fold's teacher may learn from."""
    return [one for one in samples if fold_of(one.key, folds) != fold]
