"""An exponential moving average of a model's weights: what a run with `ema` evaluates and saves."""

import copy
from typing import TypeVar

import torch
from torch import nn

_M = TypeVar("_M", bound=nn.Module)


def average_of(model: _M) -> _M:
    """A copy to average into: in eval mode, without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def update_(average: nn.Module, model: nn.Module, *, decay: float, step: int) -> None:
    """Move the average towards the model: d * average + (1 - d) * model, with d = min(decay, (1 + s) / (10 + s)).

    The smaller d of the first steps keeps the random initial weights from counting for long, as in TensorFlow's
    ExponentialMovingAverage. Running statistics are averaged like weights; whole numbers are copied.

    Args:
        average: from `average_of`; changed in place.
        model: after the step.
        decay: d in the long run; 0.999 averages over about a thousand steps.
        step: s, from 0.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, share)
        else:
            mean.copy_(value)
