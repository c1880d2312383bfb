"""A finished run as a record that the book quotes."""

import dataclasses
from pathlib import Path

from mcliplib import results
from mcliplib.evaluate import evaluate_suite
from mcliplib.evaluate.suite import score_values
from mcliplib.train.settings import TrainSettings
from mcliplib.train.trainer import TrainResult


def record_training(name: str, settings: TrainSettings, result: TrainResult) -> Path:
    """Evaluate the trained model on the mini suite and write `data/results/NAME.json`."""
    scores = evaluate_suite(result.model)
    values = {
        "minutes": result.seconds / 60,
        "samples": settings.steps * settings.batch_size,
        "samples_per_second": settings.steps * settings.batch_size / result.seconds,
        "loss": result.loss,
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
            "parameters": "parameters",
            "scores": "share of n trials, with the ends of the 95% bootstrap interval",
        },
        n=1,
        seeds=[settings.seed],
        command=command_line(name, settings),
        seconds=result.seconds,
    )


def command_line(name: str, settings: TrainSettings) -> str:
    """What to type to get the run again."""
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
    return " ".join(parts)
