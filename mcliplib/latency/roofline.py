"""Where a tower's time goes, against what the machine could do (the roofline model, Williams et al. 2009).

An operator needs at least flops / (the machine's matrix-product speed) and at least bytes / (its memory bandwidth).
Both limits are measured here, on this machine, with this number of threads.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mcliplib.latency.flops import ATTENTION, call_flops

aten = torch.ops.aten
MATRIX_SIZE = 1024
COPY_BYTES = 2**28  # larger than the caches
REPEATS = 10

_KINDS: dict[Any, str] = {
    aten.mm: "matrix product",
    aten.addmm: "matrix product",
    aten.bmm: "matrix product",
    ATTENTION: "attention",
    aten.gelu: "GELU",
    aten.add: "sum",
    aten.native_layer_norm: "normalisation",
    aten.native_batch_norm: "normalisation",
}


class Machine(NamedTuple):
    """What this machine reaches."""

    gflops: float  # 1e9 operations per second, in a product of two 1024 x 1024 matrices
    gigabytes: float  # 1e9 bytes per second, read and written, in a copy of 256 MiB


class Share(NamedTuple):
    """All operators of one kind in one forward pass."""

    kind: str
    calls: int
    milliseconds: float
    gflop: float
    megabytes: float
    bound: float  # milliseconds that the roofline allows, summed over the calls


@dataclass(frozen=True)
class _Call:
    kind: str
    seconds: float
    flops: int
    bytes: int


def machine(dtype: torch.dtype = torch.float32) -> Machine:
    """Measure the two limits with the present number of threads; takes about a second."""
    left, right = (torch.randn(MATRIX_SIZE, MATRIX_SIZE).to(dtype) for _ in range(2))
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    product = _best(lambda: torch.mm(left, right))
    copy = _best(lambda: target.copy_(source))
    return Machine(2 * MATRIX_SIZE**3 / product / 1e9, 2 * COPY_BYTES / copy / 1e9)


def shares(run: Callable[[Tensor], Tensor], example: Tensor, limits: Machine, *, repeats: int = REPEATS) -> list[Share]:
    """Time by kind of operator, the longest first; each number is the mean over `repeats` runs.

    Args:
        run: an eager function; what is compiled shows no operators.
        example: its input.
        limits: see `machine`.
        repeats: runs.
    """
    with torch.no_grad():
        run(example)
        with _Recorder() as recorder:
            for _ in range(repeats):
                run(example)
    kinds = dict.fromkeys(call.kind for call in recorder.calls)
    rows = [_share(kind, (c for c in recorder.calls if c.kind == kind), limits, repeats) for kind in kinds]
    return sorted(rows, key=lambda row: -row.milliseconds)


class _Recorder(TorchDispatchMode):
    """Times every ATen operator, and notes its operations and bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        if not func.is_view:
            operator = func.overloadpacket
            flops = call_flops(operator, args, kwargs, out)
            self.calls.append(_Call(_kind(operator, args), seconds, flops, _bytes(operator, (args, kwargs), out)))
        return out


def _bytes(operator: Any, inputs: Any, out: Any) -> int:
    """Bytes read and written; of an embedding's table only the rows that are looked up."""
    read = out if operator == aten.embedding else inputs
    leaves = [leaf for leaf in tree_leaves((read, out)) if isinstance(leaf, Tensor)]
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves)


def _kind(operator: Any, args: tuple[Any, ...]) -> str:
    if operator == aten.convolution:
        _, weight = args[:2]
        if weight.shape[1] == 1 and weight.shape[0] > 1:
            return "depthwise convolution"
        return "1x1 convolution" if weight.shape[2:].numel() == 1 else "other convolution"
    return _KINDS.get(operator, "other")


def _share(kind: str, calls: Iterable[_Call], limits: Machine, repeats: int) -> Share:
    rows = list(calls)
    bound = sum(max(row.flops / limits.gflops, row.bytes / limits.gigabytes) for row in rows) / 1e9
    return Share(
        kind,
        calls=len(rows) // repeats,
        milliseconds=1e3 * sum(row.seconds for row in rows) / repeats,
        gflop=sum(row.flops for row in rows) / repeats / 1e9,
        megabytes=sum(row.bytes for row in rows) / repeats / 1e6,
        bound=1e3 * bound / repeats,
    )


def _best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs: a limit is what is reached undisturbed."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
