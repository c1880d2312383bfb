"""Shared by all tests: threads, and weights on which a wrong fold would show."""

import pytest
import torch
from torch import nn

from mcliplib.layers import LayerScale

torch.set_num_threads(2)


def randomize_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Non-trivial statistics everywhere: fresh weights make BatchNorm and layer scales nearly the identity."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                uniform(part.running_mean, -0.5, 0.5)
                uniform(part.running_var, 0.5, 2.0)
                uniform(part.weight, 0.5, 1.5)
                uniform(part.bias, -0.5, 0.5)
            if isinstance(part, LayerScale):
                uniform(part.gamma, -1.0, 1.0)
    return module


@pytest.fixture
def randomize():
    return randomize_
