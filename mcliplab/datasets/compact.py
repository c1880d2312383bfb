"""A reinforced set in a fraction of its bytes: fewer views and dimensions, four bits a number, images left out.

What training needs of a teacher is its similarities. An orthogonal projection onto the directions in which its
embeddings vary most keeps them best (principal components, not centred); the rows are then scaled to norm 1 again.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mcliplib.data.registry import shard_paths
from mcliplib.errors import MissingFileError, UserError
from mcliplib.reinforce import manifest
from mcliplib.reinforce.augment import AugmentSettings
from mcliplib.reinforce.reading import read_reinforced
from mcliplib.reinforce.sample import EmbeddingDType, ReinforcedSample, to_members
from mcliplib.reinforce.store import Store


class Compacted(NamedTuple):
    """The result of compacting a set."""

    samples: int  # in it
    kept: tuple[float, ...]  # for each teacher, the share of its embeddings' squared norms that is left, 0 to 1
    bytes: int  # of all shards


def compact(
    folder: Path,
    output: Path,
    *,
    dims: int,
    views: int | None = None,
    dtype: EmbeddingDType = "int4",
    images: Sequence[str] | None = None,
) -> Compacted:
    """Write a small form of a finished reinforced set.

    Args:
        folder: of the set, with its `manifest.json`.
        output: folder for the small form.
        dims: of each teacher's embedding; teachers that have no more keep theirs.
        views: the first so many augmentations of each image; all if None.
        dtype: of the stored embeddings.
        images: data sets or shards that hold the images, noted in the manifest; the small form then has none, and
            `load_reinforced` joins them. None copies the images.

    Raises:
        UserError: the set is not finished, `dims` or `views` is less than one, `images` are not there, or `output`
            holds anything already.
    """
    for name, number in (("dims", dims), ("views", views)):
        if number is not None and number < 1:
            raise UserError(f"{name} must be at least 1, got {number}")
    store, written = Store(output), list[dict[str, Any]]()
    if others := [name for name in store.names() if not name.startswith(".")]:
        raise UserError(f"{output}: holds {others[0]}; name a new or empty folder")
    named = None if images is None else [_lasting(name) for name in images]
    made = manifest.read_finished(folder)
    teacher_dims, augment = manifest.made_with(made)
    shards = [folder / shard["file"] for shard in made["shards"]]
    bases, kept = _bases(_parts(shards, teacher_dims, augment), len(teacher_dims), dims)
    try:
        for shard in shards:
            samples = read_reinforced(shard, teacher_dims=teacher_dims, settings=augment, max_skipped=0.0)
            small = (_projected(one, bases, teacher_dims, views, with_image=named is None) for one in samples)
            found = store.write_shard(f"{shard.name}.gz", ((one.key, to_members(one, dtype, augment)) for one in small))
            written.append({"file": f"{shard.name}.gz", **found._asdict()})
    except BaseException:
        for one in written:  # no manifest, no set: who tries again finds the folder empty
            store.remove(one["file"])
        raise
    content = _manifest(made, written, bases, kept)
    settings = content["identity"]["settings"]
    settings |= {"dtype": dtype, "augmentations": min(settings["augmentations"], views or settings["augmentations"])}
    store.write_json(manifest.MANIFEST, content | ({} if named is None else {"images": named}))
    return Compacted(made["counts"]["samples"], kept, sum(shard["bytes"] for shard in written))


def _lasting(name: str) -> str:
    """The name of images, a path made absolute: the set may be read from another folder.

    Raises:
        UserError: it stands for nothing.
    """
    paths = shard_paths(name)
    if missing := [path for path in paths if not path.is_file()]:
        raise MissingFileError(f"no shard at {missing[0]}: check --images")
    return os.path.abspath(name) if os.sep in name or os.path.lexists(name) or "{" in name else name


def _parts(
    shards: Sequence[Path], dims: Sequence[int], augment: AugmentSettings
) -> Iterator[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Image and text embeddings of each sample, split by teacher."""
    for one in read_reinforced(shards, teacher_dims=dims, settings=augment, max_skipped=0.0):
        yield one.image_emb.split(list(dims), dim=1), one.text_emb.split(list(dims), dim=1)


def _bases(
    samples: Iterator[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]], teachers: int, dims: int
) -> tuple[list[Float[Tensor, "dim small"]], tuple[float, ...]]:
    """Orthonormal columns for each teacher; pictures and texts count alike, however many there are of each."""
    moments: list[list[Tensor]] = [[torch.zeros(()), torch.zeros(())] for _ in range(teachers)]
    for modalities in samples:
        for kind, parts in enumerate(modalities):
            for teacher, rows in enumerate(parts):
                moments[teacher][kind] = moments[teacher][kind] + rows.double().T @ rows.double()
    bases, kept = [], []
    for images, texts in moments:
        values, vectors = torch.linalg.eigh(images / images.trace() + texts / texts.trace())
        bases.append(vectors[:, -dims:].float())
        kept.append(float(values[-dims:].sum() / values.sum()))
    return bases, tuple(kept)


def _projected(
    sample: ReinforcedSample, bases: Sequence[Tensor], dims: Sequence[int], views: int | None, *, with_image: bool
) -> ReinforcedSample:
    def small(rows: Tensor) -> Tensor:
        parts = zip(rows.split(list(dims), dim=1), bases, strict=True)
        return torch.cat([torch.nn.functional.normalize(part @ base, dim=1) for part, base in parts], dim=1)

    changed = dataclasses.replace(
        sample,
        augmentations=sample.augmentations[:views],
        image_emb=small(sample.image_emb[:views]),
        text_emb=small(sample.text_emb),
        meta={},
    )
    return changed if with_image else dataclasses.replace(changed, image=None, caption=None, url="")


def _manifest(
    made: dict[str, Any], written: Sequence[dict[str, Any]], bases: Sequence[Tensor], kept: Sequence[float]
) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(made))
    for teacher, base, share in zip(content["identity"]["teachers"], bases, kept, strict=True):
        teacher |= {"dim": base.shape[1], "projected_from": teacher["dim"], "kept": round(share, 4)}
    for shard, now in zip(content["shards"], written, strict=True):
        shard |= now
    return content
