"""The search for the fastest way: what is unfaithful, broken or unavailable is dropped, and said to be."""

import copy
import math

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from mcliplib import UserError
from mcliplib.latency import WAYS, Way, tune
from mcliplib.latency.tuning import always, compiled, eager, no_compiler
from mcliplib.layers import ConvBN

TINY = nn.Sequential(ConvBN(3, 8, (3, 3)), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
PIXELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def way(clock, name, seconds, change=lambda y: y, precision="float32"):
    """A way that takes so many seconds and changes the features."""

    def prepare(tower, example):
        return clock.taking(seconds, then=lambda x: change(eager(tower, x)(x)))

    return Way(name, precision, prepare, always)


def failing(tower, example):
    raise RuntimeError("no such kernel\nand a long story")


@pytest.fixture
def ways(clock):
    return [
        way(clock, "slow", 0.03),
        way(clock, "fast", 0.02),
        way(clock, "half", 0.01, precision="bfloat16"),
        way(clock, "wrong", 0.001, change=lambda y: y.flip(-1)),
        way(clock, "nan", 0.001, change=lambda y: y * math.nan),
        Way("broken", "float32", failing, always),
        Way("absent", "float32", failing, missing=lambda: "no such machine"),
    ]


def test_the_fastest_faithful_way_wins(clock, ways):
    found = tune(TINY, PIXELS, ways=ways, rounds=3, clock=clock)
    assert found.best.way.name == "half"
    assert found.milliseconds.median == pytest.approx(10)
    assert torch.allclose(found.run(PIXELS), TINY(PIXELS), atol=1e-5)
    assert list(found.measurement.samples) == ["slow", "fast", "half"]


def test_precision_restricts_the_search(clock, ways):
    found = tune(TINY, PIXELS, ways=ways, precision="float32", rounds=3, clock=clock)
    assert found.best.way.name == "fast"
    assert "half" not in {one.way.name for one in found.candidates}


def test_each_dropped_way_says_why(clock, ways):
    lines = []
    found = tune(TINY, PIXELS, ways=ways, rounds=2, clock=clock, progress=lines.append)
    why = {one.way.name: one.dropped for one in found.candidates if one.dropped}
    assert set(why) == {"wrong", "nan", "broken", "absent"}
    assert "is below 0.999" in why["wrong"]
    assert "cosine nan" in why["nan"]
    assert why["broken"] == "RuntimeError: no such kernel"
    assert why["absent"] == "no such machine"
    assert any(line.startswith("absent: dropped, no such machine") for line in lines)


def test_with_no_way_left_the_error_names_them_all(clock, ways):
    with pytest.raises(UserError, match=r"broken.*absent"):
        tune(TINY, PIXELS, ways=ways[-2:], rounds=2, clock=clock)


def test_without_a_compiler_what_compiles_is_dropped(clock, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = tune(TINY, PIXELS, ways=WAYS, rounds=2)
    dropped = {one.way.name: one.dropped for one in found.candidates if one.dropped}
    assert set(dropped) == {"compiled", "ahead_of_time", "compiled_bf16", "ahead_of_time_bf16"}
    assert set(dropped.values()) == {"no C++ compiler (no-such-compiler)"}


def test_the_tower_is_left_as_it_is():
    tower = copy.deepcopy(TINY)
    tune(tower, PIXELS, ways=[one for one in WAYS if one.name.startswith("eager")], rounds=2)
    state = tower.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in TINY.state_dict().items())
    assert all(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.skipif(no_compiler() is not None, reason="needs a C++ compiler")
def test_compiled_with_frozen_weights_is_the_same_function(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    counters["inductor"].clear()
    run = compiled(TINY, PIXELS)
    # As an option of torch.compile, freezing is silently ignored: count the convolutions whose weights were packed.
    assert (
        not torch.backends.mkldnn.is_available() or counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] == 1
    )
    assert torch.allclose(run(PIXELS), TINY(PIXELS), atol=1e-5)
    assert run(PIXELS).dtype == torch.float32
