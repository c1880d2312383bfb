"""The look of figures: one style for the book and for data sets' contact sheets."""

from mcliplib.viz.style import PALETTE, WIDTH, hide_frame, show_picture, use_style

__all__ = ["PALETTE", "WIDTH", "hide_frame", "show_picture", "use_style"]
