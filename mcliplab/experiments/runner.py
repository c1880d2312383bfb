"""Run an experiment's runs one after the other, each at most once, and gather what came out."""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, TypedDict

from mcliplab.experiments.curves import curves, efficiency
from mcliplab.experiments.data import PlanData
from mcliplab.experiments.plan import Plan, Run
from mcliplab.experiments.record import curve
from mcliplib import results
from mcliplib.data import shard_paths
from mcliplib.errors import UserError
from mcliplib.files import fitted, read_json, write_text, writing
from mcliplib.precision import computed
from mcliplib.reinforce.manifest import MANIFEST
from mcliplib.train.data import image_shards
from mcliplib.train.metrics import METRICS_FILE, read_metrics
from mcliplib.train.settings import TrainSettings
from mcliplib.train.trainer import train

Results = dict[str, dict[str, Any]]  # by run
_CURVE_POINTS = 20
_DEFAULTS = Run("", "", TrainSettings()).as_json()


def run_plan(
    plan: Plan,
    output: Path,
    *,
    share: tuple[int, int] = (0, 1),
    variants: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Do the runs that have no result yet, neither in `output` nor in the experiment's record.

    A run that is interrupted goes on where it was.

    Args:
        plan: the experiment.
        output: folder for one result file and one model a run, and for the run that is under way.
        share: (i, n) does every n-th run from the i-th: n processes share the work.
        variants: only these; all if None.
        progress: told what is being done.

    Raises:
        UserError: the plan has no such variant, or `output` cannot be a folder.
    """
    if unknown := sorted({*(variants or ())} - {*plan.variants}):
        raise UserError(f"no variant {', '.join(unknown)} in {plan.name}; there is {', '.join(plan.variants)}")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    data = PlanData(plan)
    for number, run in enumerate(one for one in plan.runs() if one.variant in (variants or plan.variants)):
        if number % share[1] != share[0] or run.name in gather(plan, output):
            continue
        progress(run.name)
        start = time.perf_counter()
        trained = train(run.settings, output / run.name, resume=True, data=data.of(run.settings))
        content = {
            "settings": run.as_json(),
            "data_sha256": _shards_sha256(run.settings.data),
            "scores": data.scores(trained),
            "loss": trained.loss,
            "logit_scale": trained.model.scale.item(),
            "computed_in": computed(run.settings.dtype, trained.model.scale.device),
            "training_seconds": round(trained.seconds, 1),
            "hardware": results.hardware(),
            "curve": curve(read_metrics(output / run.name / METRICS_FILE), run.settings.batch_size, _CURVE_POINTS),
        }
        trained.checkpoint.replace(output / f"{run.name}.safetensors")
        _write(output / f"{run.name}.json", content)
        shutil.rmtree(output / run.name)
        progress(f"{run.name}: loss {trained.loss:.3f}, {time.perf_counter() - start:.0f} s")


def gather(plan: Plan, output: Path | None) -> Results:
    """The results that there are of the plan's runs: those in the folder, and those in the record."""
    recorded = _recorded(plan.name) if plan.name in results.names() else {}
    runs = {run.name: run for run in plan.runs()}
    paths = [path for path in sorted(output.glob("*.json")) if path.stem in runs] if output else []
    own: Results = {path.stem: fitted(read_json(path), _Result, str(path)) for path in paths}
    found: Results = {}
    for there in (recorded, own):
        found |= {name: one for name, one in there.items() if name in runs and _fits(one, runs[name])}
    return found


def _recorded(name: str) -> Results:
    values = results.load(name)["values"]
    if "runs" not in values:
        raise UserError(f"{results.folder() / name}.json: is no experiment's record; give the experiment another name")
    return dict(values["runs"])


class _Result(TypedDict):
    settings: dict[str, Any]
    data_sha256: str | None
    scores: dict[str, dict[str, Any]]
    training_seconds: float


def _fits(result: Mapping[str, Any], run: Run) -> bool:
    """Whether a result is of these settings and of these data; a setting that is newer had its default.

    Data that are not here, as a large set that was made for the experiment, are taken to be the same.
    """
    content = _shards_sha256(run.settings.data)
    same_settings = {**_DEFAULTS, **result.get("settings", {})} == run.as_json()
    return same_settings and content in (None, result.get("data_sha256"))


@cache
def _shards_sha256(names: tuple[str, ...]) -> str | None:
    """A hash of the shards' bytes, those with a reinforced set's pictures among them; None where any is not here."""
    digest = hashlib.sha256()
    try:
        own = [path for name in names for path in shard_paths(name)]
        made = [folder for folder in dict.fromkeys(path.parent for path in own) if (folder / MANIFEST).exists()]
        for path in chain(own, *map(image_shards, made)):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    except (UserError, OSError):
        return None
    return digest.hexdigest()


def _summary(runs: Results, variant: str) -> dict[str, dict[str, dict[str, float]]]:
    """For each budget and task the main score over the seeds: mean, lowest and highest."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task, by_samples in curves(runs, variant).items():
        for samples, scores in by_samples.items():
            row = {"mean": fmean(scores), "lowest": min(scores), "highest": max(scores), "seeds": len(scores)}
            found.setdefault(str(samples), {})[task] = row
    return found


def _efficiencies(runs: Results, plan: Plan) -> dict[str, dict[str, dict[str, Any]]]:
    """For each variant but the baseline, and each task and budget, what the budget is worth."""
    baseline = curves(runs, plan.baseline) if plan.baseline else {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in plan.variants:
        if baseline and variant != plan.baseline:
            better = curves(runs, variant)
            found[variant] = {
                task: {str(one.samples): dataclasses.asdict(one) for one in efficiency(curve, baseline[task])}
                for task, curve in better.items()
            }
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def record_plan(plan: Plan, output: Path, command: str) -> Path:
    """Write the results that there are to `data/results`, with those that were there before.

    Raises:
        UserError: there is none.
    """
    runs = gather(plan, output)
    if not runs:
        raise UserError(f"{output}: holds no result of {plan.name}")
    tasks = {task for one in runs.values() for task in one["scores"]}
    return results.record(
        plan.name,
        {
            "planned": sum(1 for _ in plan.runs()),
            "done": len(runs),
            "summary": {variant: _summary(runs, variant) for variant in plan.variants},
            "efficiency": _efficiencies(runs, plan),
            "runs": dict(sorted(runs.items())),
        },
        unit="shares of right answers, 0 to 1, with 95% intervals over the queries; nats; seconds; pairs seen",
        n=len(tasks),
        seeds=plan.seeds,
        command=command,
        seconds=sum(one["training_seconds"] for one in runs.values()),
    )
