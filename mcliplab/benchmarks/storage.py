"""Bytes of a reinforced sample, and the effect of each number format on the teachers' answers."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mcliplib.reinforce import augment
from mcliplib.reinforce.sample import (
    MEMBER_OF,
    EmbeddingDType,
    Embeddings,
    ReinforcedSample,
    pack,
    split_teachers,
    to_members,
    unpack,
)
from mcliplib.reinforce.store import generator_of

DTYPES: tuple[EmbeddingDType, ...] = get_args(EmbeddingDType)
SCALE = 100.0  # of the teachers' softmax, as in the loss
_BLOCK = 512  # of a tar: a header before each member, and the member filled up
_CAPTION = "a synthetic caption of a usual length, which is near fifty"
_URL = "https://example.org/" + "x" * 60


class Fidelity(NamedTuple):
    """Changes by storing embeddings; or, for two teachers, their disagreement."""

    cosine_largest: float  # error of a view's cosine with a caption
    change_mean: float  # of a probability, over all views, captions and teachers
    change_largest: float  # of any probability
    moved_mean: float  # share of a view's probability that stands at other captions, on average


def example_sample(
    views: int, captions: int, teacher_dims: Sequence[int] = (768, 768), picture: tuple[int, int] = (512, 384)
) -> ReinforcedSample:
    """A sample of the public release's shape, without its picture. Random unit vectors take as much room as real ones.

    Args:
        views: N, augmentations.
        captions: M, synthetic ones.
        teacher_dims: width of each teacher's embedding.
        picture: (width, height) in pixels, which the augmentations are drawn for.
    """
    generator = generator_of("storage", views, str(captions))
    return ReinforcedSample(
        key="0" * 32,
        augmentations=tuple(augment.sample(picture, generator) for _ in range(views)),
        synthetic_captions=(_CAPTION,) * captions,
        image_emb=unit_rows(views, teacher_dims, generator),
        text_emb=unit_rows(1 + captions, teacher_dims, generator),
        url=_URL,
        sha256="0" * 64,
    )


def sample_bytes(
    views: int, captions: int, dtype: EmbeddingDType = "bfloat16", teacher_dims: Sequence[int] = (768, 768)
) -> int:
    """Bytes of such a sample inside a tar."""
    return tar_bytes(to_members(example_sample(views, captions, teacher_dims), dtype, teacher_dims=teacher_dims))


def tar_bytes(members: Mapping[str, bytes]) -> int:
    """Bytes of a sample's members inside a tar; the archive's own end is not counted."""
    return sum(_BLOCK * (1 + ceil(len(content) / _BLOCK)) for content in members.values())


def fidelity(
    views: Float[Tensor, "v d"], captions: Float[Tensor, "c d"], teacher_dims: Sequence[int]
) -> dict[str, Fidelity]:
    """Compare each format with float32, and the first two teachers with each other (`teachers`).

    The softmax is that of every view over all captions, at scale 100.

    Args:
        views: teachers' unit vectors side by side, as they came from the teachers.
        captions: likewise.
        teacher_dims: width of each teacher's, at least two.
    """
    exact = _cosines(views, captions, teacher_dims)
    found = {}
    for dtype in DTYPES:
        stored = unpack(MEMBER_OF[dtype], pack(Embeddings(views, captions), dtype), dtype)
        found[dtype] = _compared(_cosines(stored.image, stored.text, teacher_dims), exact)
    return found | {"teachers": _compared(exact[:1], exact[1:2])}


def _cosines(views: Tensor, captions: Tensor, teacher_dims: Sequence[int]) -> Float[Tensor, "k v c"]:
    parts = zip(split_teachers(views, teacher_dims), split_teachers(captions, teacher_dims), strict=True)
    return torch.stack([view @ caption.T for view, caption in parts])


def _compared(cosines: Float[Tensor, "k v c"], exact: Float[Tensor, "k v c"]) -> Fidelity:
    change = ((SCALE * cosines).softmax(dim=-1) - (SCALE * exact).softmax(dim=-1)).abs()
    return Fidelity(
        float((cosines - exact).abs().max()),
        float(change.mean()),
        float(change.max()),
        float(change.sum(dim=-1).mean() / 2),
    )


def unit_rows(rows: int, teacher_dims: Sequence[int], generator: torch.Generator) -> Tensor:
    """Random embeddings [rows, D]: a unit vector of each teacher's width, side by side."""
    parts = (torch.randn(rows, dim, generator=generator) for dim in teacher_dims)
    return torch.cat([torch.nn.functional.normalize(part, dim=1) for part in parts], dim=1)
