"""A finished run as a record that the book quotes."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from mcliplib import results
from mcliplib.evaluate import evaluate_suite
from mcliplib.evaluate.suite import score_values
from mcliplib.precision import computed
from mcliplib.train.metrics import METRICS_FILE, read_metrics
from mcliplib.train.settings import TrainSettings
from mcliplib.train.trainer import TrainResult

_CURVE_POINTS = 60


def record_training(name: str, settings: TrainSettings, result: TrainResult) -> Path:
    """Evaluate the trained model on the mini suite and write `data/results/NAME.json`."""
    scores = evaluate_suite(result.model)
    values = {
        "minutes": result.seconds / 60,
        "samples": settings.steps * settings.batch_size,
        "samples_per_second": settings.steps * settings.batch_size / result.seconds,
        "loss": result.loss,
        "curve": curve(read_metrics(result.checkpoint.parent / METRICS_FILE), settings.batch_size),
        "computed_in": computed(settings.dtype, result.model.scale.device),
        "parameters": sum(p.numel() for p in result.model.parameters()),
        "scores": score_values(scores),
    }
    return results.record(
        name,
        values,
        unit={
            "minutes": "minutes",
            "samples": "pairs",
            "samples_per_second": "pairs/s",
            "loss": "nats",
            "curve": "pairs seen, and nats: the mean loss of the logged steps up to there, since the point before",
            "computed_in": "format of the towers' products",
            "parameters": "parameters",
            "scores": "share of n trials, with the ends of the 95% bootstrap interval",
        },
        n=1,
        seeds=[settings.seed],
        command=command_line(name, settings),
        seconds=result.seconds,
    )


def curve(
    lines: Sequence[Mapping[str, int | float]], batch_size: int, points: int = _CURVE_POINTS
) -> dict[str, list[int] | list[float]]:
    """A run's loss by pairs seen, at few enough points for a record.

    Args:
        lines: of the run's metrics.
        batch_size: pairs in a step.
        points: at most so many.
    """
    stretch = -(-len(lines) // points)
    stretches = [lines[at : at + stretch] for at in range(0, len(lines), stretch)]
    return {
        "samples": [(int(part[-1]["step"]) + 1) * batch_size for part in stretches],
        "loss": [round(fmean(line["loss"] for line in part), 4) for part in stretches],
    }


def command_line(name: str, settings: TrainSettings) -> str:
    """The command that repeats the run."""
    parts = ["mcliplib", "train", "--output", f"runs/{name}", "--record", name]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        flag = "--" + field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            parts.append(flag if value else "--no-" + flag[2:])
        else:
            parts += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(parts)
