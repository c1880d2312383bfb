"""Shared by all tests: threads, and weights on which a wrong fold would show."""

import ctypes
import gc
import os
import resource
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from torch import nn

_MUCH = 2**30  # bytes; a worker that has only imported everything takes 0.6 of it
_TOLD = 3.0  # GiB

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # no property fails because an example took long
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))  # on a busy machine, 1 is many times faster


def randomize_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Non-trivial statistics everywhere: fresh weights make BatchNorm and layer scales nearly the identity."""
    from mcliplib.layers import LayerScale  # not above: the check of annotations must come before the package

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


def refused(error: type[Exception], message: str):
    """Expect this error, or that of the annotations' check at run time, which comes first where it is on."""
    return pytest.raises((error, TypeError), match=f"{message}|Type-check error")


@pytest.fixture
def randomize():
    return randomize_


@pytest.fixture(scope="module", autouse=True)
def give_memory_back() -> Iterator[None]:
    """Freed memory returns to the system after each file of tests: glibc would keep most of it."""
    yield
    _trim()


@pytest.fixture(autouse=True)
def give_much_memory_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """A large model goes before the next test makes another; the tests that took most are told at the end."""
    before = _peak()
    yield
    if (peak := _peak()) > max(before, _TOLD):
        LARGEST[request.node.nodeid] = peak
    if psutil.Process().memory_info().rss > _MUCH:
        _trim()


def _trim() -> None:
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


@pytest.fixture(scope="session")
def colourful():
    """A picture that is not square, with edges and shades of every channel."""
    y, x = np.mgrid[0:300, 0:420]
    channels = (x * y % 256, (x // 7 + y // 5) * 13 % 256, (x + 2 * y) % 256)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


PEAKS: dict[str, float] = {}  # GiB, by worker
LARGEST: dict[str, float] = {}  # GiB, by test: the worker's peak after it, where the test raised it


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def pytest_sessionstart() -> None:
    """The package comes before open_clip and timm, whichever file is run: it may have torchvision to cure."""
    import mcliplib  # noqa: F401 (not above: the check of annotations must come before the package)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Each worker sends home how much memory it took."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput |= {"peak_gib": _peak(), "largest": LARGEST}
    else:
        PEAKS["this process"] = _peak()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node, error) -> None:
    told = getattr(node, "workeroutput", {})
    PEAKS[node.gateway.id] = told.get("peak_gib", 0.0)
    LARGEST.update(told.get("largest", {}))


def pytest_terminal_summary(terminalreporter) -> None:
    shown = ", ".join(f"{name} {peak:.1f} GiB" for name, peak in sorted(PEAKS.items()))
    terminalreporter.write_line(f"peak memory: {shown}")
    for name, peak in sorted(LARGEST.items(), key=lambda one: -one[1]):
        terminalreporter.write_line(f"  {peak:.1f} GiB after {name}")
