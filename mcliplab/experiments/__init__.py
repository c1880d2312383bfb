"""Experiments of many training runs: what to run is in a YAML file beside this, what came out in `data/results`."""

from mcliplab.experiments.curves import Efficiency, Times, efficiency, main_scores
from mcliplab.experiments.plan import Plan, Run, load_plan, plan_names
from mcliplab.experiments.runner import gather, run_plan

__all__ = [
    "Efficiency",
    "Plan",
    "Run",
    "Times",
    "efficiency",
    "gather",
    "load_plan",
    "main_scores",
    "plan_names",
    "run_plan",
]
