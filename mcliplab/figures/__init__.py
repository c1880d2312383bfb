"""Figures of the chapters: explorers and sliders, tables, the package's own code, towers, the fold step by step."""

from mcliplab.figures.accuracy_latency import draw_accuracy_latency
from mcliplab.figures.dots import Interval, draw_dots
from mcliplab.figures.explore import (
    Explorer,
    explore_augmentation,
    explore_classes,
    explore_fold,
    explore_search,
    explore_targets,
)
from mcliplab.figures.fold_steps import FoldStep, draw_fold_step, trace_fold
from mcliplab.figures.slider import frames_slider
from mcliplab.figures.source import show_source
from mcliplab.figures.table import html_table
from mcliplab.figures.towers import draw_towers

__all__ = [
    "Explorer",
    "FoldStep",
    "Interval",
    "draw_accuracy_latency",
    "draw_dots",
    "draw_fold_step",
    "draw_towers",
    "explore_augmentation",
    "explore_classes",
    "explore_fold",
    "explore_search",
    "explore_targets",
    "frames_slider",
    "html_table",
    "show_source",
    "trace_fold",
]
