"""Experiments of many training runs: what to run is in a YAML file beside this, what came out in `data/results`."""

from mcliplab.experiments.chance import constant_answer, is_non_degenerate
from mcliplab.experiments.curves import Efficiency, Times, efficiency, main_scores
from mcliplab.experiments.plan import Plan, Run, load_plan, plan_names
from mcliplab.experiments.runner import gather, run_plan

__all__ = [
    "Efficiency",
    "Plan",
    "Run",
    "Times",
    "constant_answer",
    "efficiency",
    "gather",
    "is_non_degenerate",
    "load_plan",
    "main_scores",
    "plan_names",
    "run_plan",
]
