"""The one training loop of the small parts that are fitted here: the teachers' heads, the captioner's decoders."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mcliplib.optimization import BETAS_OF_CLIP, adamw, warmup_cosine

LossOf = Callable[[Tensor, torch.Generator], Tensor]  # of the rows of a batch


@runtime_checkable
class FitSettings(Protocol):
    """The settings that the loop reads."""

    @property
    def epochs(self) -> int:
        """Passes over the rows."""

    @property
    def batch_size(self) -> int:
        """Rows in a batch."""

    @property
    def learning_rate(self) -> float:
        """The peak; warm-up over a tenth of the steps, then a cosine to zero."""

    @property
    def weight_decay(self) -> float:
        """Weight decay of AdamW."""

    @property
    def seed(self) -> int:
        """Seed of the rows' order and of the random numbers that the loss draws."""


def fit(
    module: nn.Module,
    rows: int,
    settings: FitSettings,
    loss_of: LossOf,
    progress: Callable[[int, float], None],
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Train a module with AdamW; equal arguments and machine give equal weights.

    Args:
        module: in train mode; changed in place.
        rows: how many there are to learn from; a last incomplete batch is dropped.
        settings: of the training.
        loss_of: the loss of a batch, from the rows' indices and the only source of random numbers.
        progress: told each epoch's number, from 1, and mean loss.
        optimizer: in place of the usual one; a group's `factor` multiplies the learning rate for it.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch_size, rows)
    per_epoch = rows // size
    peak, steps = settings.learning_rate, per_epoch * settings.epochs
    if optimizer is None:
        optimizer = adamw(module, learning_rate=peak, weight_decay=settings.weight_decay, betas=BETAS_OF_CLIP)
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        order = torch.randperm(rows, generator=generator)[: per_epoch * size]
        for index, chosen in enumerate(order.split(size)):
            step = (epoch - 1) * per_epoch + index
            rate = warmup_cosine(step, peak=peak, warmup_steps=max(1, steps // 10), steps=steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
            loss = loss_of(chosen, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            total += float(loss.detach())
        progress(epoch, total / per_epoch)
