"""The cost and the gain of each step of quantizing an image tower to int8, on the evaluation suite.

The steps: one step size for each tensor; for each output channel; after equalization; and the whole recipe of
`mcliplib export`, which also leaves sensitive layers in float and corrects biases. Ranges come from training pictures,
the scores from sets that no step has seen.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.data import load_samples
from mcliplib.evaluate import Score, evaluate_suite
from mcliplib.evaluate.intervals import DRAWS, interval, resampled_sums
from mcliplib.evaluate.suite import score_values, suite_datasets
from mcliplib.export.onnx import to_proto
from mcliplib.export.towers import TOWERS, Tower
from mcliplib.export.verify import ExportedEncoder
from mcliplib.latency.worker import open_onnx
from mcliplib.model import MobileCLIP
from mcliplib.quantize.equalize import equalize
from mcliplib.quantize.static import INTEGER, KINDS, Quantizer, executed, quantize_static
from mcliplib.reparam import reparameterize

MAIN = ("top1", "image_to_text_r1", "text_to_image_r1")  # of a task, in the suite's mean

Progress = Callable[[str], None]
Scores = Mapping[str, Mapping[str, Score]]  # by task and metric


def measure(
    model: MobileCLIP, calibration: Float[np.ndarray, "n 3 h w"], *, scored: bool, progress: Progress
) -> dict[str, Any]:
    """Every step's error, size and, for a trained model, its scores beside the float model's.

    Args:
        model: in eval mode.
        calibration: pixels.
        scored: whether its scores mean anything; of random weights only the features are compared.
        progress: told each step.

    Returns:
        `float` and `steps`, a record of each step; `spread`, as `spreads` gives it.
    """
    towers = {name: Tower(model, name).reference for name in TOWERS}
    plain = ExportedEncoder(model.config, towers)
    wanted = evaluate_suite(plain, progress=progress) if scored else {}
    pictures = [sample.image for sample in load_samples(suite_datasets("mini")[0])][:300]
    features = plain.encode_images(pictures)
    whole = to_proto(Tower(model, "image"))
    values: dict[str, Any] = {"float": {"bytes": whole.ByteSize()} | _scores(wanted), "steps": {}}
    for name, made in steps(model, calibration, progress):
        quantized = ExportedEncoder(
            model.config, towers | {"image": open_onnx(made.SerializeToString(), torch.get_num_threads())}
        )
        cosine = (quantized.encode_images(pictures) * features).sum(dim=1)
        counts = executed(made)
        values["steps"][name] = {
            "bytes": made.ByteSize(),
            "cosine": {"mean": cosine.mean().item(), "lowest": cosine.min().item()},
            "int8_layers": sum(counts.get(kind, 0) for kind in INTEGER),
            "float_layers": sum(counts.get(kind, 0) for kind in KINDS),
        }
        if scored:
            found = evaluate_suite(quantized, progress=progress)
            values["steps"][name] |= _scores(found) | {"change": mean_change(found, wanted)}
    return values | {"spread": spreads(model)}


def steps(model: MobileCLIP, calibration: np.ndarray, progress: Progress) -> Iterator[tuple[str, Any]]:
    """Name and quantized model of each step."""
    for name, per_channel, equalized in (
        ("per_tensor", False, False),
        ("per_channel", True, False),
        ("equalized", True, True),
    ):
        progress(name)
        tower = Tower(model, "image")
        if equalized:
            equalize(tower.encoder, torch.from_numpy(calibration))
        quantizer = Quantizer(to_proto(tower), calibration, per_channel=per_channel, ranges="percentile")
        yield name, quantizer.quantized(quantizer.nodes)
    progress("recipe")
    tower = Tower(model, "image")
    equalize(tower.encoder, torch.from_numpy(calibration))
    yield "recipe", quantize_static(tower.encoder, to_proto(tower), calibration, progress=progress).model


def mean_change(found: Scores, wanted: Scores) -> dict[str, float]:
    """The difference of two models' means over the suite's tasks, with its paired 95% interval.

    Queries are drawn anew within each task, the same ones for both models; a task counts by the mean of its main
    metrics.

    Returns:
        `value`, `low` and `high`, and the number of `tasks`.
    """
    drawn = torch.zeros(DRAWS, dtype=torch.float64)
    value = 0.0
    for at, task in enumerate(found):
        metrics = [name for name in MAIN if name in found[task]]
        for name in metrics:
            differences = _hits(found[task][name]) - _hits(wanted[task][name])
            weight = 1 / (len(metrics) * len(found))
            drawn += weight * resampled_sums(differences[:, None], seed=1000 * at)[:, 0] / len(differences)
            value += weight * differences.mean().item()
    low, high = interval(drawn)
    return {"value": value, "low": low, "high": high, "tasks": len(found)}


def spreads(model: MobileCLIP) -> dict[str, dict[str, list[float]]]:
    """How far the ranges of output channels are apart in each layer of the image tower: the largest over the median.

    Returns:
        "trained" and "folded" -> "depthwise", "pointwise" and "other" layers -> a number for each, in their order.
        Folding multiplies each channel by its BatchNorm's scale.
    """
    forms = {"trained": model.image_encoder, "folded": reparameterize(model.image_encoder)}
    found: dict[str, dict[str, list[float]]] = {form: {} for form in forms}
    for form, tower in forms.items():
        for layer in tower.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                found[form].setdefault(_kind(layer), []).append(_spread(layer.weight.detach()))
    return found


def _kind(layer: nn.Conv2d | nn.Linear) -> str:
    if isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels:
        return "depthwise"
    return "pointwise" if layer.weight.shape[2:].numel() == 1 else "other"


def _spread(weight: Tensor) -> float:
    ranges = weight.flatten(1).abs().amax(dim=1)
    return (ranges.amax() / ranges.median().clamp(min=1e-12)).item()


def _hits(score: Score) -> Tensor:
    assert score.hits is not None
    return score.hits.double()


def _scores(scores: Scores) -> dict[str, Any]:
    return {"scores": score_values(scores)} if scores else {}
