"""What chapters draw with: one style, sliders that work on a static page, the package's own code, towers, folds."""

from mcliplib.viz.explore import Explorer, explore_augmentation, explore_fold, explore_search, explore_targets
from mcliplib.viz.fold_steps import FoldStep, draw_fold_step, trace_fold
from mcliplib.viz.slider import frames_slider
from mcliplib.viz.source import show_source
from mcliplib.viz.style import PALETTE, WIDTH, hide_frame, show_picture, use_style
from mcliplib.viz.table import html_table
from mcliplib.viz.towers import draw_towers

__all__ = [
    "PALETTE",
    "WIDTH",
    "Explorer",
    "FoldStep",
    "draw_fold_step",
    "draw_towers",
    "explore_augmentation",
    "explore_fold",
    "explore_search",
    "explore_targets",
    "frames_slider",
    "hide_frame",
    "html_table",
    "show_picture",
    "show_source",
    "trace_fold",
    "use_style",
]
