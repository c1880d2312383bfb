"""Dataset reinforcement (DataCompDR, 2311.17049): augmentations, captions and teachers' embeddings, made once."""

from mcliplib.reinforce import augment
from mcliplib.reinforce.embeddings import Embeddings, split_teachers
from mcliplib.reinforce.format import ReinforcedSample, from_members, to_members
from mcliplib.reinforce.params import Augmentation, AugmentSettings

__all__ = [
    "AugmentSettings",
    "Augmentation",
    "Embeddings",
    "ReinforcedSample",
    "augment",
    "from_members",
    "split_teachers",
    "to_members",
]
