"""Pictures of classes: a data set whose samples name theirs, or a folder with a folder for each class."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from mcliplib.data.reader import IMAGE_EXTENSIONS
from mcliplib.data.registry import load_samples
from mcliplib.errors import UserError
from mcliplib.images import MAX_PIXELS, PictureError, read_picture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """Pictures of classes.

    Attributes:
        images: RGB.
        labels: [N], each one's place in `classes`.
        classes: names.

    Raises:
        ValueError: as many labels as pictures are wanted, each the place of a class.
    """

    images: Sequence[Image.Image]
    labels: Int[Tensor, " n"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or not len(self.labels) or len(self.classes) < 2:
            raise ValueError(f"{len(self.images)} pictures, {len(self.labels)} labels and {len(self.classes)} classes")
        if not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(f"labels must be in 0..{len(self.classes) - 1}")

    def part(self, rows: Int[Tensor, " m"]) -> "Labelled":
        """Some of the pictures."""
        return Labelled([self.images[row] for row in rows.tolist()], self.labels[rows], self.classes)

    def split(self, share: float, seed: int = 0) -> tuple["Labelled", "Labelled"]:
        """Two parts, of which the second has this share of each class, and at least one picture if it has two.

        Raises:
            UserError: no class has two pictures.
        """
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))
        held = []
        for label in self.labels.unique():
            members = order[self.labels[order] == label]
            held.append(members[: max(1, round(share * len(members))) if len(members) > 1 else 0])
        if not sum(map(len, held)):
            raise UserError(
                "no class has two pictures, so none can be kept out of training to score the model; "
                "add pictures to the classes, or name other pictures (--test)"
            )
        is_held = torch.zeros(len(order), dtype=torch.bool)
        is_held[torch.cat(held)] = True
        return self.part((~is_held).nonzero()[:, 0]), self.part(is_held.nonzero()[:, 0])


def load_labelled(
    name: str, label: str | None = None, *, max_pixels: int = MAX_PIXELS, side: int | None = None
) -> Labelled:
    """Read pictures of classes.

    Args:
        name: a data set or shards (see `load_samples`), or a folder with a folder of pictures for each class.
        label: the member of each sample's metadata that names its class; of a set or shards.
        max_pixels: of a picture; larger ones are left out.
        side: pixels to which the shorter side of a folder's pictures is shrunk, for less memory.

    Raises:
        UserError: nothing usable is there, fewer than two classes, or a sample does not name its class.
    """
    folder = Path(name).expanduser()
    classes = sorted(one for one in folder.iterdir() if _is_class(one)) if folder.is_dir() else []
    named = _of_folders(classes, max_pixels, side) if classes and label is None else _of_samples(name, label)
    names = tuple(sorted({of for _, of in named}))
    if len(names) < 2:
        raise UserError(f"{name}: holds {len(names)} class{'' if len(names) == 1 else 'es'}; two or more are needed")
    labels = torch.tensor([names.index(of) for _, of in named])
    return Labelled([image for image, _ in named], labels, names)


def _is_class(path: Path) -> bool:
    """Whether it is a folder with pictures, and not a hidden one."""
    return path.is_dir() and not path.name.startswith(".") and any(map(_is_named_as_picture, path.iterdir()))


def _is_named_as_picture(path: Path) -> bool:
    return path.suffix.lower().removeprefix(".") in IMAGE_EXTENSIONS and not path.name.startswith(".")


def _of_folders(classes: Sequence[Path], max_pixels: int, side: int | None) -> list[tuple[Image.Image, str]]:
    """The pictures with their classes' names; a folder `red_flag` is the class "red flag"."""
    found = []
    for folder in classes:
        for path in sorted(filter(_is_named_as_picture, folder.iterdir())):
            try:
                found.append(
                    (read_picture(path, max_pixels=max_pixels, side=side).image, folder.name.replace("_", " "))
                )
            except PictureError as error:
                log.warning("left out: %s", error)
    return found


def _of_samples(name: str, label: str | None) -> list[tuple[Image.Image, str]]:
    if label is None:
        raise UserError(f"{name}: has no folders of pictures, one for each class; of a data set, say which label")
    samples = load_samples(name)
    if without := [one for one in samples if not isinstance(one.meta.get(label), str)]:
        has = ", ".join(sorted(key for key, value in without[0].meta.items() if isinstance(value, str)))
        raise UserError(f"{name}: {without[0].key} has no label {label!r}; it has {has or 'none'}")
    return [(one.image, one.meta[label]) for one in samples]
