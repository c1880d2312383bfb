"""What figures and pages share: one style, controls that also work on a static page, and the package's own code."""

from mcliplib.viz.explore import Explorer, explore_augmentation, explore_search, explore_targets
from mcliplib.viz.slider import frames_slider
from mcliplib.viz.source import show_source
from mcliplib.viz.style import PALETTE, WIDTH, hide_frame, show_picture, use_style
from mcliplib.viz.table import html_table

__all__ = [
    "PALETTE",
    "WIDTH",
    "Explorer",
    "explore_augmentation",
    "explore_search",
    "explore_targets",
    "frames_slider",
    "hide_frame",
    "html_table",
    "show_picture",
    "show_source",
    "use_style",
]
