"""Teachers of dataset reinforcement: open_clip's models, and small towers trained on our own pairs.

`make_teacher` imports a teacher's libraries only when it is made.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from mcliplib.errors import UserError
from mcliplib.reinforce.settings import Teacher

if TYPE_CHECKING:
    from mcliplib.reinforce.teachers.minilm import MiniLM

LOCAL = ("tuned-lite0", "tuned-lite2", "lit-lite0", "lit-lite2", "conse-lite0", "conse-lite2")
ENSEMBLE = ("tuned-lite0", "tuned-lite2")  # our two teachers; the paper's are open_clip's two ViT-L-14
LOCKED = ("lit-lite0", "lit-lite2")  # those of `data/train-reinforced`


@runtime_checkable
class ScorableTeacher(Teacher, Protocol):
    """A teacher that also takes pictures, and so is an `mcliplib.evaluate` encoder."""

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size to normalised features [N, dim]."""


def make_teacher(spec: str, device: str | torch.device = "cpu", *, text: "MiniLM | None" = None) -> ScorableTeacher:
    """A teacher from its name; only then are its libraries imported.

    Args:
        spec: one of `LOCAL`; `lit-VARIANT:FILE` or `tuned-VARIANT:FILE` with a teacher's file of one's own; or
            `open_clip:NAME/TAG` with a model and a tag of pretrained weights that open_clip knows, or a checkpoint file
            as the tag.
        device: where it runs.
        text: a MiniLM to share between local teachers.

    Raises:
        UserError: no such teacher, or what it needs is not installed or cannot be fetched.
    """
    kind, _, rest = spec.partition(":")
    if kind == "open_clip":
        name, slash, tag = rest.partition("/")
        if not (name and slash and tag):
            raise UserError(f"teacher {spec!r}: write open_clip:NAME/TAG, for example open_clip:ViT-L-14/openai")
        from mcliplib.reinforce.teachers.openclip import OpenClipTeacher

        return OpenClipTeacher(name, tag, device)
    if kind not in LOCAL or (rest and kind.startswith("conse-")) or spec.endswith(":"):
        known = f"{', '.join(LOCAL)}, lit-lite0:FILE or tuned-lite0:FILE of your own, or open_clip:NAME/TAG"
        raise UserError(f"unknown teacher {spec!r}: it is one of {known}")
    from mcliplib.reinforce.teachers.locked import Heads, LockedTeacher, heads_path

    way, _, variant = kind.partition("-")
    heads = Heads() if way == "conse" else rest or heads_path(kind.removeprefix("lit-"))
    return LockedTeacher(variant, device, heads=heads, text=text, name=kind)
