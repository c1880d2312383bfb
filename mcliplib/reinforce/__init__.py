"""Dataset reinforcement (DataCompDR, 2311.17049): augmentations, captions and teachers' embeddings, made once."""

from mcliplib.reinforce import augment
from mcliplib.reinforce.embeddings import Embeddings, split_teachers
from mcliplib.reinforce.format import ReinforcedSample, from_members, to_members
from mcliplib.reinforce.params import Augmentation, AugmentSettings
from mcliplib.reinforce.protocols import Captioner, Teacher
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.run_settings import ReinforceSettings
from mcliplib.reinforce.runner import RunResult, run
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
