"""What chapters draw with: one style, sliders that work on a static page, the package's own code, the towers."""

from mcliplib.viz.slider import frames_slider
from mcliplib.viz.source import show_source
from mcliplib.viz.style import PALETTE, use_style
from mcliplib.viz.towers import draw_towers

__all__ = ["PALETTE", "draw_towers", "frames_slider", "show_source", "use_style"]
