"""The plan of an experiment: every variant at every budget with every seed."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from mcliplib.errors import UserError, first_line
from mcliplib.train.settings import TrainSettings, settings_from

_FOLDER = Path(__file__).parent
_MEMBERS = ("about", "base", "variants", "budgets", "seeds")
_SHARES = ("pictures", "holdout", "wrong_captions")


@dataclass(frozen=True)
class Run:
    """One training run of an experiment.

    Attributes:
        name: of the run, and of its files.
        variant: the row of the plan that it belongs to.
        settings: all of them.
        pictures: as the plan's, and `holdout` and `wrong_captions`.
    """

    name: str
    variant: str
    settings: TrainSettings
    pictures: float = 1.0
    holdout: float = 0.0
    wrong_captions: float = 0.0

    def fingerprint(self) -> dict[str, Any]:
        """The settings and shares as JSON gives them back: a result belongs to a run if they are equal."""
        shares = {name: getattr(self, name) for name in _SHARES}
        return dict(json.loads(json.dumps(dataclasses.asdict(self.settings) | shares)))


@dataclass(frozen=True)
class Plan:
    """An experiment.

    Attributes:
        name: of its file and of its record.
        about: what it asks, in a sentence.
        base: settings of all runs.
        variants: name -> settings that differ from the base; also `budgets`, where a variant has its own.
        budgets: samples seen, ascending.
        seeds: of each variant at each budget.
        baseline: the variant whose samples for the same score the others' efficiency is counted in, if any.
        pictures: share of the training pictures that is used, to see many passes over few; the same ones in all runs.
        holdout: share of the training concepts whose pictures are left out and scored, for choosing settings; 0 scores
            the evaluation sets. Synthetic captions of other pictures may still name them.
        wrong_captions: share of the training pictures that have another one's caption, the same ones in all runs: on
            the web, many captions do not fit.
    """

    name: str
    about: str
    base: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    baseline: str | None = None
    pictures: float = 1.0
    holdout: float = 0.0
    wrong_captions: float = 0.0

    def runs(self) -> Iterator[Run]:
        """All runs, so ordered that whoever stops early has all variants and seeds at small budgets first."""
        for budget in sorted({*chain.from_iterable(map(self.budgets_of, self.variants))}):
            for seed in self.seeds:
                for variant in self.variants:
                    if budget in self.budgets_of(variant):
                        yield self._run(variant, budget, seed)

    def budgets_of(self, variant: str) -> tuple[int, ...]:
        """Samples seen in this variant's runs."""
        return tuple(self.variants[variant].get("budgets", self.budgets))

    def _run(self, variant: str, budget: int, seed: int) -> Run:
        changes = {name: value for name, value in self.variants[variant].items() if name != "budgets"}
        settings = settings_from({**self.base, **changes, "samples": budget, "seed": seed}, f"{self.name}, {variant}")
        return Run(f"{variant}-{budget}-{seed}", variant, settings, self.pictures, self.holdout, self.wrong_captions)


def plan_names() -> list[str]:
    """The experiments of this package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_plan(name: str) -> Plan:
    """An experiment by its name, or from a YAML file; its `base` may be the name of another one, whose base it has.

    Raises:
        UserError: there is no such experiment, or the file is not one.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no experiment {name!r}; there is {', '.join(plan_names())}, or a .yaml file") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({first_line(error)})") from error
    values = _checked(values, path)
    plan = Plan(
        path.stem,
        values["about"],
        values["base"] if isinstance(values["base"], dict) else load_plan(values["base"]).base,
        values["variants"],
        tuple(values["budgets"]),
        tuple(values["seeds"]),
        values.get("baseline"),
        **{name: float(values[name]) for name in _SHARES if name in values},
    )
    list(plan.runs())  # bad settings are found now, not after hours
    return plan


def _checked(values: Any, path: Path) -> dict[str, Any]:
    """The content of a plan's file, of the right types.

    Raises:
        UserError: names what is not.
    """
    if missing := [member for member in _MEMBERS if not isinstance(values, dict) or member not in values]:
        raise UserError(f"{path}: an experiment has {', '.join(_MEMBERS)}; missing: {', '.join(missing)}")
    if unknown := sorted(set(values) - {*_MEMBERS, *_SHARES, "baseline"}):
        raise UserError(f"{path}: unknown: {', '.join(unknown)}")
    if not isinstance(values["base"], dict | str) or values["base"] == path.stem:
        raise UserError(f"{path}: base must be settings, or the name of another experiment")
    if not isinstance(values["variants"], dict):
        raise UserError(f"{path}: variants must be `name: {{settings}}` lines")
    variants = {str(name): changes or {} for name, changes in values["variants"].items()}
    for name, changes in variants.items():
        if not isinstance(changes, dict):
            raise UserError(f"{path}: the variant {name} must hold settings, got {changes!r}")
        _check_whole_numbers(changes.get("budgets", [1]), f"{path}: budgets of the variant {name}")
    for member in ("budgets", "seeds"):
        _check_whole_numbers(values[member], f"{path}: {member}")
    if (baseline := values.get("baseline")) not in (None, *variants):
        raise UserError(f"{path}: the baseline {baseline!r} is not among the variants: {', '.join(variants)}")
    for name in _SHARES:
        share = values.get(name, 0)
        if not (isinstance(share, int | float) and 0 <= share <= 1):
            raise UserError(f"{path}: {name} must be a share from 0 to 1, got {share!r}")
    return {**values, "variants": variants}


def _check_whole_numbers(found: Any, where: str) -> None:
    if not (isinstance(found, list) and found and all(type(one) is int for one in found)):
        raise UserError(f"{where} must be a list of whole numbers, got {found!r}")
