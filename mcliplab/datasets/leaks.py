"""No picture of training may be in evaluation: drop the evaluation samples that look like a training one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mcliplab.datasets.draft import Draft
from mcliplab.datasets.fingerprint import distances, fingerprints, near_duplicates

_SAME_BITS, _SAME_COLOUR = 2, 0.03  # inside one evaluation set only true repetitions go


def matches(left: Sequence[Draft], right: Sequence[Draft]) -> NDArray[np.bool_]:
    """[n, m]: whether picture i of the left is picture j of the right."""
    return near_duplicates(
        fingerprints([draft.image for draft in left]), fingerprints([draft.image for draft in right])
    )


def without_leaks(evaluation: Sequence[Draft], training: Sequence[Draft]) -> list[Draft]:
    """The evaluation samples whose picture is not among the training ones."""
    leaked = np.any(matches(evaluation, training), axis=1).tolist()
    return [draft for draft, out in zip(evaluation, leaked, strict=True) if not out]


def without_repetitions(drafts: Sequence[Draft]) -> list[Draft]:
    """The first of each group of identical pictures: one picture with two names would have two right answers."""
    prints = fingerprints([draft.image for draft in drafts])
    hashed, coloured = distances(prints, prints)
    same = (hashed <= _SAME_BITS) & (coloured <= _SAME_COLOUR)
    kept: list[int] = []
    for index in range(len(drafts)):
        if not same[index, kept].any():
            kept.append(index)
    return [drafts[index] for index in kept]
