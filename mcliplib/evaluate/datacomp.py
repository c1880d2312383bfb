"""The 38 evaluation sets of DataComp (2304.14108), each scored by its own metric, beside the published results.

A result is a line of JSON as DataComp writes it, `{"key": ..., "dataset": ..., "metrics": {..., "main_metric": ...}}`,
to which we add the main metric's 95% interval, its queries, the pictures left out, and notes on what lowers the score.
A damaged set has a fault instead.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch

from mcliplib.errors import UserError, WriteError, first_line
from mcliplib.evaluate.features import Encoder, FeatureCache
from mcliplib.evaluate.intervals import Score, worst_group
from mcliplib.evaluate.layout import Encoded, EvalSet, encode, open_set
from mcliplib.evaluate.scores import jaccard, macro_f1, nearest_class, retrieval, zero_shot
from mcliplib.files import fitted, read_bytes, read_json

Line = dict[str, Any]
PUBLISHED = Path(__file__).with_name("published_38.json")  # of the released models: the results' main metrics
_MOST_RESULTS = 1 << 24  # bytes


class Task(NamedTuple):
    """One of the sets: its key, its name, its main metric, and how it is scored where not as its kind says."""

    key: str
    name: str
    main: str = "acc1"
    grouped: bool = False  # each picture's group is the first number about it
    left_out: int | None = None  # a group that is not compared
    folders: tuple[str, ...] = ()  # further names of its folder


PER_CLASS, RECALL = "mean_per_class_recall", "mean_recall@1"
SUITE = (
    Task("vtab/caltech101", "Caltech-101", PER_CLASS),
    Task("cifar10", "CIFAR-10"),
    Task("vtab/cifar100", "CIFAR-100"),
    Task("vtab/clevr_count_all", "CLEVR Counts"),
    Task("vtab/clevr_closest_object_distance", "CLEVR Distance"),
    Task("country211", "Country211"),
    Task("vtab/dtd", "Describable Textures"),
    Task("vtab/eurosat", "EuroSAT"),
    Task("fgvc_aircraft", "FGVC Aircraft", PER_CLASS),
    Task("food101", "Food-101"),
    Task("gtsrb", "GTSRB"),
    Task("imagenet1k", "ImageNet 1k"),
    Task("imagenet_sketch", "ImageNet Sketch"),
    Task("imagenetv2", "ImageNet v2"),
    Task("imagenet-a", "ImageNet-A"),
    Task("imagenet-o", "ImageNet-O"),
    Task("imagenet-r", "ImageNet-R"),
    Task("vtab/kitti_closest_vehicle_distance", "KITTI Vehicle Distance"),
    Task("mnist", "MNIST"),
    Task("objectnet", "ObjectNet"),
    Task("vtab/flowers", "Oxford Flowers-102", PER_CLASS),
    Task("vtab/pets", "Oxford-IIIT Pet", PER_CLASS),
    Task("voc2007", "Pascal VOC 2007"),
    Task("vtab/pcam", "PatchCamelyon"),
    Task("renderedsst2", "Rendered SST2"),
    Task("vtab/resisc45", "RESISC45"),
    Task("cars", "Stanford Cars"),
    Task("stl10", "STL-10"),
    Task("sun397", "SUN397"),
    Task("vtab/svhn", "SVHN"),
    Task("retrieval/flickr_1k_test_image_text_retrieval", "Flickr", RECALL, folders=("wds_flickr30k",)),
    Task("retrieval/mscoco_2014_5k_test_image_text_retrieval", "MSCOCO", RECALL, folders=("wds_mscoco_captions",)),
    Task("misc/winogavil", "WinoGAViL", "jaccard_score_10-12"),  # cues with ten or twelve candidates
    Task("wilds/iwildcam", "iWildCam", "F1-macro_all"),
    Task("wilds/camelyon17", "Camelyon17"),
    Task("wilds/fmow", "FMoW", "acc_worst_region", grouped=True, left_out=5),  # four pictures of "other" regions
    Task("fairness/dollar_street", "Dollar Street", "acc_top5_wg", grouped=True),  # quarters by income
    Task("fairness/geode", "GeoDE", "acc_wg", grouped=True),  # regions
)


def evaluate_root(
    encoder: Encoder,
    root: str,
    suite: str = "datacomp38",
    *,
    cache: FeatureCache | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Line]:
    """Results of the suite's sets, one after the other.

    A missing set has a main metric of None. So has a damaged one of several, which also says its `fault`.

    Args:
        encoder: of pictures and texts.
        root: where the sets' folders are (`mcliplib.evaluate.layout`).
        suite: "datacomp38", or the name of one set: NAME of its folder `wds_NAME`, or a key of the suite.
        cache: of features.
        progress: told each set before it is evaluated.

    Raises:
        UserError: all sets are missing, or the one that was named is damaged.
        WriteError: the cache cannot be written.
    """
    one = next((task for task in SUITE if suite == task.key), Task(suite, suite, ""))
    tasks = SUITE if suite == "datacomp38" else (one,)
    absent: list[Line] = []  # since the last set that is there
    for at, task in enumerate(tasks, start=1):
        progress(f"{at} of {len(tasks)}: {task.name}")
        plain, last = (f"wds_{name.replace('/', '-')}" for name in (task.key, task.key.rpartition("/")[2]))
        folders = [f"{plain}_test", plain, f"{last}_test", last, *task.folders]
        line: Line = {"key": task.key, "dataset": task.name, "metrics": {"main_metric": None}}
        try:
            if (found := open_set(root, list(dict.fromkeys(folders)))) is None:
                absent.append(line)
                continue
            line = line_of(task, found, encode(found, encoder, grouped=task.grouped, cache=cache))
        except UserError as error:
            if isinstance(error, WriteError) or len(tasks) == 1:
                raise
            line["fault"] = str(error)
        yield from absent
        absent.clear()
        yield line
    if len(absent) == len(tasks):
        wanted = f"{plain}/test/nshards.txt" if len(tasks) == 1 else f"folder of the {len(tasks)} sets, as {plain}"
        raise UserError(f"{root}: has no {wanted}; name the folder or URL that holds the sets' folders")
    yield from absent


def line_of(task: Task, found: EvalSet, encoded: Encoded) -> Line:
    """The result of a set.

    Raises:
        UserError: the set cannot be scored by its metric.
    """
    kind = found.kind
    score = {"retrieval": _retrieval, "association": _association}.get(kind, _classification)
    metrics = score(task, encoded)
    default = {"retrieval": RECALL, "association": "jaccard_score_10-12"}.get(kind, "acc1")
    main = metrics.get(task.main or default)
    if main is None:
        raise UserError(
            f"{task.key}: its metric {task.main or default} cannot be had from its {len(encoded.images)} pictures "
            f"(kind: {kind}); fetch the set again"
        )
    values = {name: None if value is None else float(value) for name, value in metrics.items()}
    about = {"interval": [main.low, main.high], "n": main.n, "skipped": encoded.skipped}
    if notes := _notes(found, encoded):
        about["notes"] = notes
    return {"key": task.key, "dataset": task.name, "metrics": {**values, "main_metric": float(main)}, **about}


def _notes(found: EvalSet, encoded: Encoded) -> list[str]:
    """Faults of the set that lower its score: a name of several classes, a cue without a right candidate."""
    notes = []
    if repeated := [name for name, times in Counter(found.classes).items() if times > 1]:
        notes.append(f"several classes have one name, and ties count as wrong: {', '.join(repeated)}")
    if found.kind == "association":
        cues, answered = len(encoded.texts), encoded.labels[encoded.groups > 0].unique().numel()
        if answered < cues:
            notes.append(f"{cues - answered} of {cues} cues have no right candidate and are left out")
    return notes


def average(lines: Sequence[Line]) -> float | None:
    """The mean of the 38 main metrics; None unless all 38 are there."""
    found = {line["key"]: line["metrics"]["main_metric"] for line in lines}
    values = [found.get(task.key) for task in SUITE]
    return None if None in values else sum(values) / len(values)  # type: ignore[arg-type]


def missing(lines: Sequence[Line]) -> list[str]:
    """The suite's sets without a result."""
    there = {line["key"] for line in lines if line["metrics"]["main_metric"] is not None}
    return [task.key for task in SUITE if task.key not in there]


def _classification(task: Task, encoded: Encoded) -> dict[str, Score | None]:
    found = zero_shot(encoded.images, encoded.texts, encoded.labels)
    assert found.top1.hits is not None
    assert found.top5.hits is not None
    metrics = {"acc1": found.top1, "acc5": found.top5 if found.classes >= 5 else None, PER_CLASS: found.mean_per_class}
    if task.main.startswith("F1"):
        metrics[task.main] = macro_f1(nearest_class(encoded.images, encoded.texts), encoded.labels)
    elif task.grouped:
        kept = torch.ones_like(encoded.groups).bool() if task.left_out is None else encoded.groups != task.left_out
        hits = found.top5.hits if "top5" in task.main else found.top1.hits
        metrics[task.main] = worst_group(hits[kept], encoded.groups[kept]) if kept.any() else None
    return metrics


def _retrieval(task: Task, encoded: Encoded) -> dict[str, Score | None]:
    pairs = torch.stack([encoded.labels, torch.arange(len(encoded.labels))], dim=1)
    found = retrieval(encoded.images, encoded.texts, pairs)
    ways = {"image_retrieval": found.text_to_image, "text_retrieval": found.image_to_text}
    metrics = {f"{way}_recall@{k}": score for way, recalls in ways.items() for k, score in recalls.items()}
    return {**metrics, RECALL: _half(found.text_to_image[1], found.image_to_text[1])}


def _half(one: Score, other: Score) -> Score:
    """The mean of two scores; their errors are taken to be independent."""
    mean = (one + other) / 2
    low, high = (
        ((one - getattr(one, end)) ** 2 + (other - getattr(other, end)) ** 2) ** 0.5 / 2 for end in ("low", "high")
    )
    return Score(mean, mean - low, mean + high, one.n + other.n)


def _association(task: Task, encoded: Encoded) -> dict[str, Score | None]:
    similarities, right = [], []
    for cue, text in enumerate(encoded.texts):
        candidates = encoded.labels == cue
        if not encoded.groups[candidates].any():
            continue
        similarities.append(encoded.images[candidates] @ text)
        right.append(encoded.groups[candidates].bool())
    large = [at for at, one in enumerate(right) if len(one) >= 10]
    chosen = jaccard([similarities[at] for at in large], [right[at] for at in large]) if large else None
    return {"avg_jaccard_score": jaccard(similarities, right) if right else None, "jaccard_score_10-12": chosen}


class _Metrics(TypedDict):
    main_metric: float | None


class _Result(TypedDict):
    key: str
    dataset: str
    metrics: _Metrics
    interval: NotRequired[tuple[float, float]]
    skipped: NotRequired[int]
    notes: NotRequired[list[str]]
    fault: NotRequired[str]


def read_results(path: Path) -> list[Line]:
    """The lines of a results file, ours or a published one.

    Raises:
        UserError: it is no such file.
    """
    lines = []
    for number, text in enumerate(read_bytes(path, _MOST_RESULTS).splitlines(), start=1):
        try:
            line = json.loads(text, parse_constant=lambda _: None)  # published files have NaN for empty groups
            lines.append(fitted(line, _Result, "the object"))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: is not a result ({first_line(error)}); name a file that "
                f"`--suite datacomp38 --output` wrote"
            ) from error
    return lines


def published_results(model: str) -> dict[str, float]:
    """The released model's published main metrics by key; some have more than the 38 of `SUITE`.

    Raises:
        UserError: nothing is published of this model; lists those of which there is.
    """
    table = fitted(read_json(PUBLISHED), dict[str, dict[str, float]], str(PUBLISHED))
    if model not in table:
        raise UserError(f"no published results of {model!r}; --published-model is one of {', '.join(sorted(table))}")
    return table[model]


def beside_published(lines: Sequence[Line], model: str) -> str:
    """A table of results beside a released model's, with a mark where the published value is outside our interval.

    Args:
        lines: results; those without an interval are not marked.
        model: name of the released model.

    Raises:
        UserError: nothing is published of this model; lists those of which there is.
    """
    published = published_results(model)
    rows, marked = [f"{'':<52}{'here':>7}  {'95% interval':<15}{model:>16}{'difference':>12}"], 0
    for line in lines:
        value, wanted = line["metrics"]["main_metric"], published.get(line["key"])
        here = "missing" if value is None else f"{100 * value:.2f}"
        there = "" if wanted is None else f"{100 * wanted:.2f}"
        low, high = line.get("interval", (None, None))
        span = "" if low is None else f"[{100 * low:5.1f}, {100 * high:5.1f}]"
        outside = None not in (value, wanted, low) and not low <= wanted <= high
        marked += outside
        difference = (
            "" if value is None or wanted is None else f"{100 * (value - wanted):+.2f}{'*' if outside else ' '}"
        )
        rows.append(f"{line['key']:<52}{here:>7}  {span:<15}{there:>16}{difference:>12}")
    ours, theirs = average(lines), sum(published[task.key] for task in SUITE) / len(SUITE)
    rows.append(
        f"{'average of the 38':<52}{'-' if ours is None else f'{100 * ours:.2f}':>7}  {'':<15}{100 * theirs:>16.2f}"
    )
    rows.append(f"* differs by more than its interval: {marked} sets")
    return "\n".join(rows)
