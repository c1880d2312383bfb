"""The learning rate over a run."""

import math


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
