"""One look for all figures: colours that everyone can tell apart, on a white card that suits light and dark pages.

Figures are at most `WIDTH` inches wide with text of 9 points or more. On a phone's page of 358 pixels, 9 points are 9.7
pixels high.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, ordered so that the first ones differ most in brightness too.
PALETTE = {
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "vermillion": "#d55e00",
    "sky": "#56b4e9",
    "purple": "#cc79a7",
    "yellow": "#f0e442",
    "black": "#000000",
}
LINE_STYLES = ("-", "--", "-.", ":")  # cycled with the colours: no line is told apart by colour alone
SEQUENTIAL = "cividis"  # for matrices and images of one quantity
DIVERGING = "PuOr"  # for quantities with a sign

WIDTH = 4.6  # inches

SETTINGS: dict[str, Any] = {
    "figure.figsize": (WIDTH, 3.0),
    "figure.dpi": 144,  # of the pictures inside a figure; lines and text are vectors
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "grid.color": "#e0e0e0",
    "font.size": 10,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "svg.hashsalt": "mcliplib",  # the same figure gives the same file
}


def use_style() -> None:
    """Set matplotlib's defaults for the figures of a notebook or script; in a notebook, figures become SVG."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    colours = list(PALETTE.values())
    styles = [LINE_STYLES[i % len(LINE_STYLES)] for i in range(len(colours))]
    plt.style.use(SETTINGS)
    plt.rcParams["axes.prop_cycle"] = cycler(color=colours) + cycler(linestyle=styles)
    if _in_a_notebook():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")


def show_picture(axis: "Axes", picture: Any, title: str = "") -> None:
    """Show a picture, or an array [height, width, 3], without an axis or a frame.

    Args:
        axis: where.
        picture: what matplotlib's `imshow` takes.
        title: above it; lines are not wrapped.
    """
    axis.imshow(picture)
    axis.set_title(title, fontsize=10)
    axis.set(xticks=[], yticks=[])
    hide_frame(axis)


def hide_frame(axis: "Axes") -> None:
    """No spines and no grid: for pictures and matrices, whose own edge is their frame."""
    axis.spines[:].set_visible(False)
    axis.grid(False)


def _in_a_notebook() -> bool:
    import sys

    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None
