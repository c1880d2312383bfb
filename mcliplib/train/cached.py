"""A contrastive batch that does not fit in memory at once: gradients of the whole, part by part.

Ordinary gradient accumulation would contrast each part with itself only. As in GradCache (Gao et al., 2101.06983), the
loss needs only the features of all rows, which are small: encode every part without keeping activations, take the
loss's gradient with respect to the features, then encode each part again and continue the backward pass from there.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Encode = Callable[[int], Sequence[Tensor]]  # of a part's number: its features, [b, ...] each
LossOf = Callable[[Sequence[Tensor]], Tensor]


def backward(model: nn.Module, encode: Encode, parts: int, loss_of: LossOf) -> Tensor:
    """Add the gradients of a loss over all parts together to the model's parameters.

    Exact where a row's features do not depend on the rows beside it. In training, with BatchNorm they do: it normalises
    with the statistics of each part, as it would in as many processes; its running statistics move once per part.

    Args:
        model: whose parameters `encode` and `loss_of` may use.
        encode: the features of one part; the same ones (random numbers included) each time it is asked.
        parts: how many there are. With one, this is `loss_of(encode(0)).backward()`.
        loss_of: the loss of the features of all parts, in the parts' order.

    Returns:
        The loss, detached.
    """
    if parts == 1:
        loss = loss_of(encode(0))
        loss.backward()
        return loss.detach()
    with torch.no_grad(), _statistics_kept(model):
        cached = [encode(part) for part in range(parts)]
    leaves = [torch.cat(column).requires_grad_() for column in zip(*cached, strict=True)]
    loss = loss_of(leaves)
    loss.backward()
    sizes = [len(features[0]) for features in cached]
    gradients = zip(*(_gradient(leaf).split(sizes) for leaf in leaves), strict=True)
    for part, of_part in enumerate(gradients):
        torch.autograd.backward(encode(part), of_part)
    return loss.detach()


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


@contextlib.contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalises as in training, but its running statistics stay: each part is encoded twice."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
