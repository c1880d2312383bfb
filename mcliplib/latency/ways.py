"""The ways of running a folded tower on a CPU inside PyTorch, in one table.

A way takes a folded tower and an example of its input, and gives a function from such an input to features in
float32. It leaves the tower as it is. What a way does is one short function; what it needs is said by `missing`.
"""

import copy
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
Run = Callable[[Tensor], Tensor]


def nothing() -> None:
    """What is missing for plain PyTorch."""


@dataclass(frozen=True)
class Way:
    """A way of running a tower.

    Attributes:
        name: in tables and records.
        precision: of the weights and activations.
        prepare: folded tower and example input -> function of inputs of that shape.
        missing: what this machine lacks for it, None if nothing.
    """

    name: str
    precision: Precision
    prepare: Callable[[nn.Module, Tensor], Run]
    missing: Callable[[], str | None]


def eager(tower: nn.Module, example: Tensor, *, dtype: torch.dtype = torch.float32) -> Run:
    """Operator by operator, weights and activations in `dtype`."""
    return _run(_cast(tower, dtype), dtype)


def autocast(tower: nn.Module, example: Tensor) -> Run:
    """Eager; PyTorch chooses the operators that compute in bfloat16."""
    run = eager(tower, example)

    def cast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return run(x).float()

    return cast


def compiled(tower: nn.Module, example: Tensor, *, dtype: torch.dtype = torch.float32) -> Run:
    """TorchInductor with frozen weights: packed once into oneDNN's layout, GELUs and sums fused into what precedes.

    Exporting first gives every tower code of its own: dynamo keeps its graphs by code object, and would otherwise
    go through those of all ways prepared before. The code is made for the present number of threads.
    """
    program = torch.export.export(_cast(tower, dtype), (_like(example, dtype),)).module()
    run = _run(torch.compile(program, dynamic=False), dtype)
    # Freezing is read from the global settings: as an option of `torch.compile` it has no effect.
    with _inductor():
        run(example)
    return run


def ahead_of_time(tower: nn.Module, example: Tensor, *, dtype: torch.dtype = torch.float32) -> Run:
    """As `compiled`, into a library (AOTInductor): no guards, no Python between the kernels.

    In float32 it also takes oneDNN's linear layer where `compiled` takes MKL's, which is the slower one on AMD.
    """
    program = torch.export.export(_cast(tower, dtype), (_like(example, dtype),))
    with tempfile.TemporaryDirectory() as directory, _inductor():
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(directory) / "tower.pt2"))
        return _run(torch._inductor.aoti_load_package(path), dtype)


def no_compiler() -> str | None:
    """What is missing for TorchInductor's code: it calls the C++ compiler that `CXX` names, else g++ or clang++."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return None if any(map(shutil.which, wanted)) else f"no C++ compiler ({' or '.join(wanted)})"


def _cast(tower: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(tower).eval().requires_grad_(False).to(dtype)


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels in `dtype`; token ids as they are."""
    return x.to(dtype) if x.is_floating_point() else x


def _run(call: Callable[[Any], Tensor], dtype: torch.dtype) -> Run:
    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return call(_like(x, dtype)).float()

    return run


@contextmanager
def _inductor() -> Iterator[None]:
    import torch._inductor.config as config

    with config.patch(freezing=True), torch.inference_mode():
        yield


def _way(name: str, prepare: Callable[..., Run], missing: Callable[[], str | None], *, bf16: bool = False) -> Way:
    if bf16:
        return Way(f"{name}_bf16", "bfloat16", functools.partial(prepare, dtype=torch.bfloat16), missing)
    return Way(name, "float32", prepare, missing)


WAYS: tuple[Way, ...] = (
    _way("eager", eager, nothing),
    _way("compiled", compiled, no_compiler),
    _way("ahead_of_time", ahead_of_time, no_compiler),
    Way("autocast_bf16", "bfloat16", autocast, nothing),
    _way("eager", eager, nothing, bf16=True),
    _way("compiled", compiled, no_compiler, bf16=True),
    _way("ahead_of_time", ahead_of_time, no_compiler, bf16=True),
)
