"""AdamW with the right parameters decayed, and the learning rate over a run."""

import math

import torch
from torch import nn

BETAS_OF_CLIP = (0.9, 0.98)  # the Transformer's (1706.03762), and CLIP's for its ViTs (2103.00020)


def adamw(
    module: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float], eps: float = 1e-8
) -> torch.optim.AdamW:
    """AdamW (1711.05101); vectors and scalars (norms, biases, scales, temperature) have no weight decay.

    Args:
        module: whose parameters.
        learning_rate: until it is set anew.
        weight_decay: of matrices and convolution kernels.
        betas: decays of the first and second moment.
        eps: added to the root of the second moment.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def warmup_cosine(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Linear warm-up to `peak`, then half a cosine down to zero at `steps`.

    Args:
        step: the step about to be taken, from 0.
        peak: the highest rate.
        warmup_steps: steps of warm-up.
        steps: steps in the whole run.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
