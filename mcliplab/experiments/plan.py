"""The plan of an experiment: every variant at every budget with every seed."""

import dataclasses
import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mcliplib.errors import MissingFileError, UserError
from mcliplib.files import fitted, plain_name, read_yaml
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

    def as_json(self) -> dict[str, Any]:
        """Return the settings and shares as JSON gives them back; a recorded result with equal ones is this run's."""
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
    path = _path(name)
    values = _read(name)
    plan = Plan(
        path.stem,
        values["about"],
        _base(name),
        values["variants"],
        tuple(values["budgets"]),
        tuple(values["seeds"]),
        values.get("baseline"),
        **{name: float(values[name]) for name in _SHARES if name in values},
    )
    list(plan.runs())  # bad settings are found now, not after hours
    return plan


def _base(name: str) -> dict[str, Any]:
    """The settings that a plan begins with, its own or those of the plan that it names."""
    passed: list[str] = []
    while isinstance(base := _read(name)["base"], str):
        passed.append(name)
        if base in passed:
            raise UserError(f"{_path(name)}: base: {' -> '.join([*passed, base])} leads back to where it began")
        name = base
    return dict(base)


def _path(name: str) -> Path:
    return Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{plain_name(name, 'experiment')}.yaml"


def _read(name: str) -> dict[str, Any]:
    path = _path(name)
    try:
        return _checked(read_yaml(path), path)
    except MissingFileError as error:
        raise UserError(f"no experiment {name!r}; there is {', '.join(plan_names())}, or a .yaml file") from error


def _checked(values: Any, path: Path) -> dict[str, Any]:
    """The content of a plan's file, of the right types.

    Raises:
        UserError: names what is not.
    """
    if missing := [member for member in _MEMBERS if not isinstance(values, dict) or member not in values]:
        raise UserError(f"{path}: an experiment has {', '.join(_MEMBERS)}; missing: {', '.join(missing)}")
    if unknown := sorted(map(str, set(values) - {*_MEMBERS, *_SHARES, "baseline"})):
        raise UserError(f"{path}: unknown: {', '.join(unknown)}")
    if not isinstance(values["base"], dict | str) or values["base"] == path.stem:
        raise UserError(f"{path}: base must be settings, or the name of another experiment")
    if isinstance(values["base"], str) and not values["base"].endswith((".yaml", ".yml")):
        plain_name(values["base"], f"{path}: base")
    if not isinstance(values["variants"], dict):
        raise UserError(f"{path}: variants must be `name: {{settings}}` lines")
    fitted(values["about"], str, f"{path}: about")
    variants = {plain_name(str(name), f"{path}: variant"): one or {} for name, one in values["variants"].items()}
    if not variants or len(variants) < len(values["variants"]):
        raise UserError(f"{path}: variants must have names of their own, and be at least one")
    for name, changes in variants.items():
        if not isinstance(changes, dict):
            raise UserError(f"{path}: the variant {name} must hold settings, got {reprlib.repr(changes)}")
        _check_whole_numbers(changes.get("budgets", [1]), f"{path}: budgets of the variant {name}")
    for member in ("budgets", "seeds"):
        _check_whole_numbers(values[member], f"{path}: {member}")
    if (baseline := values.get("baseline")) not in (None, *variants):
        raise UserError(
            f"{path}: the baseline {reprlib.repr(baseline)} is not among the variants: {', '.join(variants)}"
        )
    for name in _SHARES:
        share = values.get(name, 0)
        if not (type(share) in (int, float) and 0 <= share <= 1):
            raise UserError(f"{path}: {name} must be a share from 0 to 1, got {reprlib.repr(share)}")
    return {**values, "variants": variants}


def _check_whole_numbers(found: Any, where: str) -> None:
    numbers = isinstance(found, list) and found and all(type(one) is int and 0 <= one < 1 << 40 for one in found)
    if not (numbers and len(set(found)) == len(found)):
        raise UserError(f"{where} must be a list of different whole numbers from 0, got {reprlib.repr(found)}")
