"""How good the teachers are, alone and together, against the towers joined without training."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from mcliplab.teachers.ensemble import Ensemble
from mcliplib.evaluate import evaluate_suite
from mcliplib.evaluate.features import Encoder
from mcliplib.evaluate.scores import Score
from mcliplib.reinforce.teachers import ENSEMBLE, LOCAL, LOCKED, make_teacher
from mcliplib.reinforce.teachers.minilm import MiniLM

Scores = dict[str, dict[str, dict[str, Score]]]  # teacher, "set/task", metric


def score_teachers(suite: str = "mini", progress: Callable[[str], None] = lambda _: None) -> Scores:
    """Scores of every local teacher, and of both ensembles, on a suite.

    Args:
        suite: as `evaluate_suite` takes it.
        progress: told what is being scored.

    Raises:
        UserError: as `make_teacher` and `evaluate_suite`.
    """
    text = MiniLM()
    members: dict[str, Encoder] = {spec: _Remembering(make_teacher(spec, text=text)) for spec in LOCAL}
    members["ensemble"] = Ensemble([members[spec] for spec in ENSEMBLE])
    members["ensemble_locked"] = Ensemble([members[spec] for spec in LOCKED])
    return {
        name: evaluate_suite(encoder, suite, progress=lambda part, name=name: progress(f"{name}: {part}"))  # type: ignore[misc]
        for name, encoder in members.items()
    }


class _Remembering:
    """An encoder that is asked only once about each picture: the ensemble asks its members again."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.encode_texts = encoder, encoder.encode_texts
        self.known: dict[bytes, Tensor] = {}

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        keys = [hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest() for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self.known}
        self.known.update(zip(new, self.encoder.encode_images(list(new.values())), strict=True) if new else {})
        return torch.stack([self.known[key] for key in keys])
