"""One look for all figures: colours that everyone can tell apart, on a white card that suits light and dark pages."""

from typing import Any

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

SETTINGS: dict[str, Any] = {
    "figure.figsize": (7.0, 3.6),
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "grid.color": "#e0e0e0",
    "font.size": 11,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "svg.hashsalt": "mcliplib",  # the same figure gives the same file
}


def use_style() -> None:
    """Set matplotlib's defaults for the figures of a notebook or script."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    colours = list(PALETTE.values())
    styles = [LINE_STYLES[i % len(LINE_STYLES)] for i in range(len(colours))]
    plt.style.use(SETTINGS)
    plt.rcParams["axes.prop_cycle"] = cycler(color=colours) + cycler(linestyle=styles)
