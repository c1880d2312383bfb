"""The folding of a block as a figure to play with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcliplab.figures.fold_steps import FoldStep, draw_fold_step
from mcliplib.viz import Explorer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explore_fold(steps: Sequence[FoldStep]) -> Explorer:
    """Show every step of a block's folding, and the kernels of every channel.

    Args:
        steps: of `trace_fold`.
    """
    import ipywidgets

    rows, channels = max(len(step.branches) for step in steps), len(steps[0].branches[0].bias)
    controls = {
        "step": ipywidgets.IntSlider(value=0, min=0, max=len(steps) - 1, description="step"),
        "channel": ipywidgets.IntSlider(value=0, min=0, max=channels - 1, description="channel"),
    }

    def draw(step: int, channel: int) -> "tuple[Figure, str]":
        return draw_fold_step(steps[step], channel=channel, rows=rows), steps[step].alt

    captions = [f"{i} of {len(steps) - 1}: {step.caption}" for i, step in enumerate(steps)]
    return Explorer(draw, controls, [{"step": i} for i in range(len(steps))], "step", captions)
