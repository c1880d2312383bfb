"""The cost and the gain of each step of quantizing an image tower to int8, on the evaluation suite.

The steps: one step size for each tensor; for each output channel; after equalization; and the whole recipe of
`mcliplib export`, which also leaves sensitive layers in float and corrects biases. Ranges come from training pictures,
the scores from sets that no step has seen. Each step is taken twice: with the tower as it is, and with the same
function written so that its channels differ in range, as those of long training do.
"""

import copy
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.data import load_samples
from mcliplib.errors import UserError
from mcliplib.evaluate import Score, evaluate_suite
from mcliplib.evaluate.intervals import DRAWS, interval, resampled_sums
from mcliplib.evaluate.suite import score_values, suite_datasets
from mcliplib.export.onnx import to_proto
from mcliplib.export.towers import TOWERS, Tower
from mcliplib.export.verify import ExportedEncoder, Runtime
from mcliplib.latency.worker import open_onnx, open_openvino
from mcliplib.model import MobileCLIP
from mcliplib.quantize.equalize import equalize, pairs
from mcliplib.quantize.static import INTEGER, KINDS, Quantizer, executed, quantize_static
from mcliplib.quiet import quiet
from mcliplib.reparam import reparameterize

MAIN = ("top1", "image_to_text_r1", "text_to_image_r1")  # of a task, in the suite's mean
OCTAVES = 6.0  # of the factors of `with_factors`

Progress = Callable[[str], None]
Scores = Mapping[str, Mapping[str, Score]]  # by task and metric


def measure(
    model: MobileCLIP,
    calibration: Float[np.ndarray, "n 3 h w"],
    *,
    scored: bool,
    nncf: bool = False,
    progress: Progress,
) -> dict[str, Any]:
    """Every step's error, size and, for a trained model, its scores beside the float model's.

    Args:
        model: in eval mode.
        calibration: pixels.
        scored: whether its scores mean anything; of random weights only the features are compared.
        nncf: measure OpenVINO's own quantizer too, as the last step; it must be there (`pip install nncf`).
        progress: told each step.

    Returns:
        `float`; `steps`, a record of each step, and `drawn`, for a trained model, the same of the same function with
        the factors of `with_factors`; `spread`, as `spreads` gives it.

    Raises:
        UserError: NNCF is asked for, and not installed.
    """
    if nncf and importlib.util.find_spec("nncf") is None:
        raise UserError("NNCF's quantizer is not installed: pip install nncf")
    towers = {name: Tower(model, name).reference for name in TOWERS}
    plain = ExportedEncoder(model.config, towers)
    wanted = evaluate_suite(plain, progress=progress) if scored else {}
    pictures = [sample.image for sample in load_samples(suite_datasets("mini")[0])][:300]
    features = plain.encode_images(pictures)

    def compared(image: Runtime) -> dict[str, Any]:
        quantized = ExportedEncoder(model.config, towers | {"image": image})
        cosine = (quantized.encode_images(pictures) * features).sum(dim=1)
        about: dict[str, Any] = {"cosine": {"mean": cosine.mean().item(), "lowest": cosine.min().item()}}
        if scored:
            found = evaluate_suite(quantized, progress=progress)
            about |= _scores(found) | {"change": mean_change(found, wanted)}
        return about

    whole = to_proto(Tower(model, "image"))
    values: dict[str, Any] = {"float": {"bytes": whole.ByteSize()} | _scores(wanted)}
    forms = {"steps": None} | ({"drawn": with_factors(Tower(model, "image").encoder, OCTAVES)} if scored else {})
    for name, encoder in forms.items():
        values[name] = {}
        for step, made in steps(model, encoder, calibration, progress):
            counts = executed(made)
            values[name][step] = compared(open_onnx(made.SerializeToString(), torch.get_num_threads())) | {
                "bytes": made.ByteSize(),
                "int8_layers": sum(counts.get(kind, 0) for kind in INTEGER),
                "float_layers": sum(counts.get(kind, 0) for kind in KINDS),
            }
        if nncf:
            progress("nncf")
            with tempfile.TemporaryDirectory() as folder:
                path = _by_nncf(to_proto(_tower(model, encoder)), calibration, Path(folder))
                about = compared(open_openvino(path, torch.get_num_threads()))
                values[name]["nncf"] = about | {"bytes": sum(part.stat().st_size for part in path.parent.iterdir())}
    return values | {"spread": spreads(model)}


def steps(
    model: MobileCLIP, encoder: nn.Module | None, calibration: np.ndarray, progress: Progress
) -> Iterator[tuple[str, Any]]:
    """Name and quantized model of each step; of another folded image tower, if one is given."""
    for name, per_channel, equalized in (
        ("per_tensor", False, False),
        ("per_channel", True, False),
        ("equalized", True, True),
    ):
        progress(name)
        made = _tower(model, encoder)
        if equalized:
            equalize(made.encoder, torch.from_numpy(calibration))
        quantizer = Quantizer(to_proto(made), calibration, per_channel=per_channel, ranges="percentile")
        yield name, quantizer.quantized(quantizer.nodes)
    progress("recipe")
    made = _tower(model, encoder)
    equalize(made.encoder, torch.from_numpy(calibration))
    yield "recipe", quantize_static(made.encoder, to_proto(made), calibration, progress=progress).model


def _tower(model: MobileCLIP, encoder: nn.Module | None) -> Tower:
    made = Tower(model, "image")
    made.encoder = made.encoder if encoder is None else copy.deepcopy(encoder)
    return made


@torch.no_grad()
def with_factors(folded: nn.Module, octaves: float, seed: int = 0) -> nn.Module:
    """The same function with other weights: each channel's row times a factor, the next layer's column over it.

    Where nothing but a ReLU stands between two layers (`pairs`), such factors change nothing but the
    ranges. Long training makes them; here they are drawn from 2^-octaves to 2^octaves.
    """
    made = copy.deepcopy(folded)
    generator = torch.Generator().manual_seed(seed)
    for first, second in pairs(made):
        if second.weight.dim() == 4 and first.weight.shape[0] == second.weight.shape[1]:
            drawn = 2 * torch.rand(first.weight.shape[0], generator=generator) - 1
            factor = 2 ** (octaves * drawn)
            first.weight *= factor[:, None, None, None]
            if first.bias is not None:
                first.bias *= factor
            second.weight /= factor[None, :, None, None]
    return made


def _by_nncf(model: Any, calibration: np.ndarray, folder: Path) -> Path:
    """A float `onnx.ModelProto` quantized by NNCF with its settings for networks with attention; the .xml file."""
    import nncf
    import onnx
    import openvino

    with quiet():
        onnx.save(model, folder / "float.onnx")
        dataset = nncf.Dataset([picture[None] for picture in calibration])
        made = nncf.quantize(
            openvino.convert_model(folder / "float.onnx"),
            dataset,
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
        )
        (folder / "int8").mkdir()
        openvino.save_model(made, folder / "int8/image.xml", compress_to_fp16=False)
    return folder / "int8/image.xml"


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
    return {"trained": _spreads(model.image_encoder), "folded": _spreads(reparameterize(model.image_encoder))}


def _spreads(tower: nn.Module) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for layer in tower.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            found.setdefault(_kind(layer), []).append(_spread(layer.weight.detach()))
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
