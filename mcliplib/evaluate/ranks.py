"""The rank of the first right answer: what both zero-shot accuracy and retrieval recall are read from."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def first_right_rank(
    similarity: Float[Tensor, "queries candidates"], right: Bool[Tensor, "queries candidates"]
) -> Int[Tensor, " queries"]:
    """How many wrong candidates stand before each query's best right one; 0 is a hit at 1.

    A wrong candidate with the same similarity counts as standing before it: a model that maps everything to one
    point scores 0, not 1. So does a similarity that is no number.
    """
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return (~(similarity < best) & ~right).sum(dim=1)
