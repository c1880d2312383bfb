"""Several processes that train one model: each has a part of every batch's rows.

Start them with `torchrun --nproc-per-node 2 -m mcliplib train ...`; a run may be resumed with another number. Each
process makes the pictures of the whole batch and keeps its rows: cheap beside the towers for a few processes, and on
GPUs made ahead by threads.

The contrastive losses compare every row with every other, so the features of all processes are gathered first; each
process then computes the whole loss (B x B similarities, in every process: for batches up to some ten thousand pairs),
and its towers' gradients from its own rows. Only BatchNorm makes it differ from one process with the whole batch: see
`average_`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mcliplib.errors import UserError

_T = TypeVar("_T")


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Join the other processes that `torchrun` started; without it, or in a group that exists, change nothing."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys() or distributed.is_initialized():
        yield
        return
    where = device()
    if where.type == "cuda":
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def device() -> torch.device:
    """This process's GPU where there is one (hide it with CUDA_VISIBLE_DEVICES=), else the CPU."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def own_rows(batch_size: int) -> slice:
    """This process's part of a batch; parts differ by at most one row."""
    return part_of(batch_size, rank(), world_size())


def part_of(rows: int, part: int, parts: int) -> slice:
    """The rows of one of several parts that are as even as can be."""
    return slice(part * rows // parts, (part + 1) * rows // parts)


def gather(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The rows of all processes, in the order of their ranks; with gradient.

    The gradient assumes that every process computes the same loss from what it gets here, the loss of the whole batch,
    and that the parameters' gradients are averaged afterwards (by `average_`, or by DistributedDataParallel).

    `torch.distributed.nn.functional.all_gather` would do for equal parts only: it makes room for each process's rows in
    the shape of its own. Its backward pass also sends every gradient to every process and adds up `world_size` equal
    ones; ours gets the same number by a multiplication, and sends nothing.

    Args:
        tensors: [b, ...] each; b may differ between the processes, but is the same for all tensors of one.

    Returns:
        [B, ...] each, B the sum of the b; the tensors themselves where there is one process.
    """
    if world_size() == 1 or not tensors:
        return tuple(tensors)
    own = torch.tensor([len(tensors[0])], device=tensors[0].device)
    counts = [torch.zeros_like(own) for _ in range(world_size())]
    distributed.all_gather(counts, own)
    sizes = [int(count) for count in counts]
    return tuple(_Gather.apply(tensor, sizes) for tensor in tensors)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int]) -> Tensor:
        ctx.rows = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # all_gather takes equal shapes only
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # All processes hold the same loss, so the gradient of our own rows is complete: nothing has to be sent. The
        # towers' gradient is the sum over the processes, but what follows is their mean, which is right for parameters
        # outside of the towers (each process has the temperature's whole gradient). Hence the factor.
        return world_size() * gradients[0][ctx.rows], None


def average_(model: nn.Module) -> None:
    """Replace each gradient, and BatchNorm's running statistics, by their mean over the processes.

    In training, BatchNorm normalises with the statistics of the rows that went through the model together: of this
    process's part. That is a noisier normalisation than the whole batch's, the same as `accumulate` has with as many
    parts, and as the released training has. (PyTorch's SyncBatchNorm exists for GPUs only; on these, convert the model
    with it for statistics of the whole batch.) Everything else equals one process with the whole batch, to rounding.
    """
    if world_size() == 1:
        return
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
    statistics = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)]
    tensors = [p.grad for p in model.parameters() if p.grad is not None] + [t for t in statistics if t is not None]
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message instead of hundreds
    distributed.all_reduce(flat)
    means = (flat / world_size()).split([tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view(tensor.shape))


def merged(own: Mapping[int, _T]) -> dict[int, _T]:
    """The entries of all processes' mappings, whose keys differ."""
    if world_size() == 1:
        return dict(own)
    all_of_them: list[Any] = [None] * world_size()
    distributed.all_gather_object(all_of_them, dict(own))
    return {key: value for one in all_of_them for key, value in one.items()}


def check_agreement(what: str, value: object) -> None:
    """Make sure that all processes have the same.

    Raises:
        UserError: they differ; in all processes, so that none waits for the others.
    """
    if world_size() == 1:
        return
    values: list[object] = [None] * world_size()
    distributed.all_gather_object(values, value)
    if any(one != values[0] for one in values):
        raise UserError(f"{what}: the processes differ ({', '.join(map(str, values))}); they must see the same files")
