"""Retrieval: find the text of a picture among all texts, and the picture of a text among all pictures."""

from typing import NamedTuple

import torch
from torch import Tensor

from mcliplib.evaluate.bootstrap import Score, score
from mcliplib.evaluate.ranks import first_right_rank

DEPTHS = (1, 5, 10)


class Retrieval(NamedTuple):
    """Recall at 1, 5 and 10 both ways: the share of queries with a right answer among the first k."""

    image_to_text: dict[int, Score]
    text_to_image: dict[int, Score]


def retrieval(image_features: Tensor, text_features: Tensor, pairs: Tensor | None = None) -> Retrieval:
    """Recall at k both ways.

    Args:
        image_features: [N, D], normalised.
        text_features: [M, D], normalised.
        pairs: [P, 2] (image index, text index) that belong together; an image may have several texts and the other
            way round. None: row i belongs to row i.

    Raises:
        ValueError: shapes that do not fit, or an image or text without a pair.
    """
    if pairs is None:
        pairs = torch.arange(len(image_features)).repeat(2, 1).T
    pairs = torch.as_tensor(pairs)
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must be [P, 2] indices, got {list(pairs.shape)}")
    right = torch.zeros(len(image_features), len(text_features), dtype=torch.bool)
    if len(pairs) and (int(pairs.min()) < 0 or (pairs.amax(dim=0) >= torch.tensor(right.shape)).any()):
        raise ValueError(f"pairs point outside the {right.shape[0]} images and {right.shape[1]} texts")
    right[pairs[:, 0], pairs[:, 1]] = True
    if not (right.any(dim=0).all() and right.any(dim=1).all()):
        raise ValueError("every image and every text must be in at least one pair")
    similarity = image_features @ text_features.T
    return Retrieval(_recalls(similarity, right), _recalls(similarity.T, right.T))


def _recalls(similarity: Tensor, right: Tensor) -> dict[int, Score]:
    ranks = first_right_rank(similarity, right)
    return {depth: score(ranks < depth) for depth in DEPTHS}
