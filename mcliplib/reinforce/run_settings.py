"""What decides the content of a reinforced data set; equal settings, input and models give equal bytes."""

from dataclasses import dataclass, field
from typing import get_args

from mcliplib.data.sample import MAX_PIXELS
from mcliplib.errors import UserError
from mcliplib.reinforce.embeddings import EmbeddingDType
from mcliplib.reinforce.params import PAPER, AugmentSettings


@dataclass(frozen=True)
class ReinforceSettings:
    """Settings of a run, written to its manifest.

    Attributes:
        augmentations: N views of each image. DataCompDR (2311.17049) has 10 for 1B pairs, 30 for 12M.
        captions: M synthetic captions of each image; without a captioner there are none.
        dtype: of the stored embeddings.
        augment: what the views are drawn from.
        seed: of the views and of the captions; each sample's views depend on it and on the sample's key alone.
        shard_size: samples of a list that make one output shard; an input shard stays one output shard.
        batch_size: views, or texts, in one call of a teacher. Batches never cross a shard.
        max_pixels: images whose header announces more are skipped.
        threads: torch's while teachers run. Not taken from the machine: the last bits of sums depend on it.

    Raises:
        UserError: a number is out of its range.
    """

    augmentations: int = 10
    captions: int = 5
    dtype: EmbeddingDType = "bfloat16"
    augment: AugmentSettings = field(default=PAPER)
    seed: int = 0
    shard_size: int = 1000
    batch_size: int = 64
    max_pixels: int = MAX_PIXELS
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("augmentations", "shard_size", "batch_size", "max_pixels", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.captions < 0:
            raise UserError(f"captions must not be negative, got {self.captions}")
        if self.dtype not in get_args(EmbeddingDType):
            raise UserError(f"dtype must be one of {', '.join(get_args(EmbeddingDType))}, got {self.dtype!r}")
