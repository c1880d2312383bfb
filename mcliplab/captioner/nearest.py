"""A captioner that says of a picture what was said of others: the texts that a teacher finds nearest.

Captions by retrieval are old (Ordonez et al., Im2Text, NeurIPS 2011). Where the teacher has not seen the picture, its
captions are right and wrong as a trained captioner's are.
"""

import hashlib
from collections.abc import Sequence

import torch
from PIL import Image

from mcliplib.reinforce.store import generator_of
from mcliplib.reinforce.teachers import ScorableTeacher


class NearestCaptioner:
    """Draws captions from the softmax of a teacher's similarities.

    Args:
        teacher: looks at the pictures.
        texts: what it may say, each once.
        scale: inverse temperature of the softmax over the texts.
    """

    name = "nearest"

    def __init__(self, teacher: ScorableTeacher, texts: Sequence[str], scale: float = 50.0) -> None:
        self.teacher, self.scale = teacher, scale
        self.texts = list(dict.fromkeys(texts))
        self.features = teacher.encode_texts(self.texts)
        said = hashlib.sha256("\n".join(self.texts).encode()).hexdigest()
        self.identity = {"teacher": teacher.name, **teacher.identity, "texts_sha256": said, "scale": str(scale)}

    def caption(self, images: Sequence[Image.Image], keys: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """See `mcliplib.reinforce.Captioner`; a likely text is drawn more than once."""
        found = (self.scale * self.teacher.encode_images(images) @ self.features.T).softmax(dim=-1)
        drawn = [
            torch.multinomial(row, count, replacement=True, generator=generator_of("nearest", seed, key)).tolist()
            for row, key in zip(found, keys, strict=True)
        ]
        return [[self.texts[place] for place in places] for places in drawn]
