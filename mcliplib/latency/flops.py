"""The cost of a tower on paper, and where its time goes against what the machine could do.

The second is the roofline model (Williams et al. 2009): an operator needs at least flops / (the machine's
arithmetic speed) and at least bytes / (its memory bandwidth). Both limits are measured here, on this machine, with this
number of threads. `nominal_gflops` says what the processor could do on paper.
"""

import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
aten = torch.ops.aten
MATRIX_SIZES = (512, 1024, 2048)
CONVOLVED = (2, 256, 28, 28)  # pixels of the convolution that is tried: batch, channels, height, width
CONVOLUTION_FLOPS = 2 * 9 * CONVOLVED[1] * math.prod(CONVOLVED)
COPY_BYTES = 2**28  # larger than the caches
REPEATS = 10
CPUINFO = Path("/proc/cpuinfo")
# Vector instructions and those for low precision, as Linux names them: x86 first, then Arm.
FLAGS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimd", "bf16", "i8mm"),
)
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


def cpu_attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """The CPU's attention kernel, which PyTorch's own table leaves out."""
    return sdpa_flop_count(query, key, value)


# A call of an operator -> its operations; a multiplication and an addition count as two.
EXTRA = {ATTENTION: cpu_attention_flops}


@dataclass(frozen=True)
class LayerCost:
    """One layer, or a whole tower.

    Attributes:
        name: its path in the tower; empty for the tower.
        kind: its class.
        parameters: how many.
        flops: floating-point operations of one forward pass of the example.
    """

    name: str
    kind: str
    parameters: int
    flops: int


def tower_cost(tower: nn.Module, example: Tensor) -> LayerCost:
    """The whole tower's cost; matrix products, convolutions and attention are counted."""
    with _counter() as counter, torch.no_grad():
        tower(example)
    return LayerCost("", type(tower).__name__, _parameters(tower), counter.get_total_flops())


def call_flops(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Operations of one call of an ATen operator (an OpOverloadPacket); 0 where none are counted."""
    if operator in EXTRA:
        return EXTRA[operator](*(arg.shape for arg in args[:3]))
    count = flop_registry.get(operator)
    return 0 if count is None else int(count(*args, **kwargs, out_val=out))


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=EXTRA)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Machine(NamedTuple):
    """The speed that this machine reaches."""

    gflops: float  # 1e9 operations per second, in the fastest of some matrix products and convolutions
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
    """Measure the two limits with the present number of threads; takes a few seconds."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source))
    return Machine(max(_speeds(dtype)), 2 * COPY_BYTES / copy / 1e9)


def _speeds(dtype: torch.dtype) -> Iterator[float]:
    """1e9 operations per second of products of square matrices, and of a 3 x 3 convolution."""
    for size in MATRIX_SIZES:
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        yield 2 * size**3 / _best(functools.partial(torch.mm, left, right)) / 1e9
    layer = convolution().to(dtype)
    pixels = torch.randn(CONVOLVED).to(dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        yield CONVOLUTION_FLOPS / _best(lambda: layer(pixels)) / 1e9


def convolution() -> nn.Conv2d:
    """A layer that does `CONVOLUTION_FLOPS` on `CONVOLVED` pixels, as fast as a library's best kernels can."""
    return nn.Conv2d(CONVOLVED[1], CONVOLVED[1], 3, padding=1)


def nominal_gflops(threads: int, cpuinfo: Path = CPUINFO) -> float | None:
    """1e9 float32 operations per second on paper: threads x clock x 2 (an FMA is two) x lanes x 2 units.

    The clock is what Linux says of the first core; a processor may run faster for a while, or slower under AVX-512, and
    small ones have one unit. None where the system does not tell, or where the instruction set is not known here.
    """
    clock, flags = _entry("cpu MHz", cpuinfo), _entry("flags", cpuinfo)
    if clock is None or flags is None:
        return None
    lanes = next((lanes for flag, lanes in (("avx512f", 16), ("avx2", 8)) if flag in flags.split()), None)
    return None if lanes is None else threads * float(clock) / 1e3 * 2 * lanes * 2


def cpu_flags(cpuinfo: Path = CPUINFO) -> list[str]:
    """Those of `FLAGS` that the first core has, sorted: they say in which precision a processor can be fast.

    Empty where the system does not tell.
    """
    flags = _entry("flags", cpuinfo) or _entry("Features", cpuinfo) or ""
    return sorted(set(FLAGS) & set(flags.split()))


def _entry(name: str, cpuinfo: Path) -> str | None:
    """The first core's entry of that name in Linux's list of processors; None where there is none."""
    found = re.search(rf"^{name}\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    return None if found is None else found[1]


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
