"""Figures that only the chapters draw: towers, and the fold step by step."""

from mcliplab.figures.explore_fold import explore_fold
from mcliplab.figures.fold_steps import FoldStep, draw_fold_step, trace_fold
from mcliplab.figures.towers import draw_towers

__all__ = ["FoldStep", "draw_fold_step", "draw_towers", "explore_fold", "trace_fold"]
