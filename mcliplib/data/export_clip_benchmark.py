"""Our sets in CLIP_benchmark's WebDataset layout, for its own tool and for `mcliplib evaluate --root`."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mcliplib.data.registry import get_card, load_samples
from mcliplib.data.sample import Sample
from mcliplib.data.shards import write_shard
from mcliplib.errors import UserError
from mcliplib.files import write_text


def export_clip_benchmark(name: str, output: Path, templates: Mapping[bool, Sequence[str]]) -> list[Path]:
    """Write a folder for each task of a set: `wds_NAME`, or `wds_NAME-TASK` where there are several tasks.

    Pictures are written as they are read here, upright and on white, in lossless WebP: others read the same pixels.

    Args:
        name: a data set with evaluation tasks.
        output: the folder to write them to.
        templates: prompts for photographs (True) and for drawings (False), `{}` in the class's place.

    Returns:
        The folders.

    Raises:
        UserError: no such set, or it has no task.
        WriteError: a file cannot be written.
    """
    card, samples, folders = get_card(name), load_samples(name), []
    if not card["tasks"]:
        raise UserError(f"{name}: has no evaluation task, so there is nothing to export")
    for task, spec in card["tasks"].items():
        folder = output / (f"wds_{name}" if len(card["tasks"]) == 1 else f"wds_{name}-{task}")
        if spec["kind"] == "retrieval":
            write_text(folder / "dataset_type.txt", "retrieval\n")
            answers = [{"txt": " ".join(one.caption.splitlines()).encode()} for one in samples]
        else:
            classes = spec["classes"]
            write_text(folder / "classnames.txt", "".join(f"{one}\n" for one in classes))
            prompts = "".join(f"{one.replace('{}', '{c}')}\n" for one in templates[spec["photos"]])
            write_text(folder / "zeroshot_classification_templates.txt", prompts)
            answers = [{"cls": str(classes.index(one.meta[spec["label_field"]])).encode()} for one in samples]
        write_shard(folder / "test" / "0.tar", _members(samples, answers))
        write_text(folder / "test" / "nshards.txt", "1\n")  # last: the set is complete
        folders.append(folder)
    return folders


def _members(
    samples: Sequence[Sample], answers: Sequence[Mapping[str, bytes]]
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    for at, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        picture = io.BytesIO()
        sample.image.save(picture, "webp", lossless=True)
        yield f"s{at:07d}", {"webp": picture.getvalue(), **answer}
