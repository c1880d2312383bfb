"""Are the synthetic captions of a reinforced set worth training on? Its own teachers' embeddings say."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from mcliplib.data.reader import ReadReport
from mcliplib.reinforce import manifest
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.reinforce.sources import local_copy
from mcliplib.reinforce.store import Store

_MOST = 1000  # samples that are compared with one another
_POOR = 0.5  # of the real captions' share


class CaptionCheck(NamedTuple):
    """How often the teachers find a picture by a caption, as shares of all captions, 0 to 1."""

    pictures: int  # among which it is looked for
    real: float
    synthetic: float

    def __str__(self) -> str:
        line = (
            f"by its synthetic caption the teachers find the picture among {self.pictures:,} in {self.synthetic:.0%} "
            f"of cases, by its real one in {self.real:.0%}"
        )
        if self.synthetic >= _POOR * self.real:
            return line
        return f"{line}: these captions are poor; train with --captions 0"


def check_captions(samples: Iterable[ReinforcedSample]) -> CaptionCheck:
    """Look for each picture by its real and by its first synthetic caption; one with the same real caption is right.

    Args:
        samples: with at least one synthetic caption each.
    """
    found = list(samples)
    images = torch.stack([one.image_emb.mean(dim=0) for one in found])
    names: dict[str | None, int] = {}
    labels = torch.tensor([names.setdefault(one.caption, len(names)) for one in found])

    def share(row: int) -> float:
        texts: Tensor = torch.stack([one.text_emb[row] for one in found])
        return float((labels[(texts @ images.T).argmax(dim=1)] == labels).float().mean())

    return CaptionCheck(len(found), share(0), share(1))


def found_by_caption(output: str) -> CaptionCheck:
    """`check_captions` of the first thousand samples of a finished set in a folder, or at a URL.

    Raises:
        UserError: there is no such set.
    """
    return check_captions(islice(_stored(output), _MOST))


def _stored(output: str) -> Iterator[ReinforcedSample]:
    described = Store(output).read_json(manifest.MANIFEST, manifest.checked) or {}
    way = manifest.made_with(described)
    for shard in described.get("shards", []):
        with local_copy(f"{output.rstrip('/')}/{shard['file']}") as path:
            yield from read_reinforced(
                path, settings=way.augment, teacher_dims=way.teacher_dims, report=ReadReport(), max_skipped=1.0
            )
