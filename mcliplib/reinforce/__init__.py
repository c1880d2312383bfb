"""Dataset reinforcement (DataCompDR, 2311.17049): augmentations, captions and teachers' embeddings, made once."""

from mcliplib.reinforce import augment
from mcliplib.reinforce.augment import Augmentation, AugmentSettings
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.runner import RunResult, run
from mcliplib.reinforce.sample import Embeddings, ReinforcedSample, from_members, split_teachers, to_members
from mcliplib.reinforce.settings import Captioner, ReinforceSettings, Teacher
from mcliplib.reinforce.teachers import make_teacher

__all__ = [
    "AugmentSettings",
    "Augmentation",
    "Captioner",
    "Embeddings",
    "ReinforceSettings",
    "ReinforcedSample",
    "RunResult",
    "Teacher",
    "augment",
    "from_members",
    "make_teacher",
    "read_reinforced",
    "run",
    "split_teachers",
    "to_members",
]
