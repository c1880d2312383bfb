"""A world like the web's: vague and wrong captions, and teachers that have seen none of the pictures that they teach.

The training pictures are dealt into folds. Each fold's teacher and captioner learned from the other folds, with full
captions: other drawings of a concept were seen, as web-scale teachers know the concepts, but never the picture itself.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcliplab.captioner.nearest import NearestCaptioner
from mcliplab.experiments.folds import MOST_FOLDS, fold_of, outside
from mcliplab.experiments.noise import with_vague_captions, with_wrong_captions
from mcliplib.data import Sample, load_samples, write_shard
from mcliplib.errors import UserError
from mcliplib.reinforce import runner
from mcliplib.reinforce.augment import AugmentSettings
from mcliplib.reinforce.settings import ReinforceSettings
from mcliplib.reinforce.teachers import ScorableTeacher


@dataclass(frozen=True)
class World:
    """Settings of a world: the faults of its captions, and the folds of its pictures.

    Attributes:
        names: share of the pictures that keep their names (`noise.with_vague_captions`).
        wrong: share that gets another picture's caption, whatever that is.
        folds: parts of the pictures, each with a teacher of its own.
        augmentations: views of each picture.
        captions: synthetic captions of each picture.
    """

    names: float
    wrong: float = 0.2
    folds: int = 4
    augmentations: int = 5
    captions: int = 5

    def __post_init__(self) -> None:
        for name in ("names", "wrong"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be a share from 0 to 1, got {getattr(self, name)}")
        if not 2 <= self.folds <= MOST_FOLDS:
            raise UserError(f"folds must be from 2 to {MOST_FOLDS}, got {self.folds}")


def make_world(
    output: Path,
    world: World,
    teacher_of: Callable[[int], ScorableTeacher],
    *,
    samples: Sequence[Sample] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Write `plain/fold-N.tar` and the reinforced sets `reinforced/fold-N`; what is there is not made again.

    Args:
        output: folder.
        world: its captions.
        teacher_of: the teacher that learned from all folds but this one.
        samples: the training pictures with full captions; all that are shipped unless given.
        progress: told of progress.
    """
    named = list(samples if samples is not None else load_samples("train"))
    known = with_wrong_captions(with_vague_captions(named, world.names), world.wrong)
    settings = ReinforceSettings(
        augmentations=world.augmentations,
        captions=world.captions,
        dtype="int8",
        augment=AugmentSettings(crop_scale=(0.6, 1.0), num_ops=1, magnitude=6),
        shard_size=1000,
    )
    for fold in range(world.folds):
        progress(f"fold {fold + 1} of {world.folds}")
        shard = output / "plain" / f"fold-{fold}.tar"
        own = [one for one in known if fold_of(one.key, world.folds) == fold]
        shard.parent.mkdir(parents=True, exist_ok=True)
        write_shard(shard, [(one.key, _members(one)) for one in own])
        teacher = teacher_of(fold)
        captioner = NearestCaptioner(teacher, [one.caption for one in outside(named, fold, world.folds)])
        runner.run(
            [str(shard)],
            output / "reinforced" / f"fold-{fold}",
            teachers=[teacher],
            captioner=captioner,
            settings=settings,
            resume=True,
        )


def _members(sample: Sample) -> dict[str, bytes]:
    buffer = io.BytesIO()
    sample.image.save(buffer, "PNG")
    meta = {name: value for name, value in sample.meta.items() if name != "keywords"}
    return {"png": buffer.getvalue(), "txt": sample.caption.encode(), "json": json.dumps(meta).encode()}
