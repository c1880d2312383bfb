"""Counted operations, and where the time goes."""

import pytest
import torch
from torch import nn

from mcliplib.latency import Machine, flops, machine, shares, tower_cost
from mcliplib.latency.flops import nominal_gflops
from mcliplib.layers import SelfAttention


def test_a_convolutions_operations():
    conv = nn.Conv2d(4, 6, 3, padding=1)
    cost = tower_cost(conv, torch.rand(1, 4, 5, 7))
    assert (cost.flops, cost.parameters) == (2 * 6 * 5 * 7 * 4 * 9, 6 * 4 * 9 + 6)


def test_attention_is_counted():
    batch, tokens, dim = 2, 5, 32
    cost = tower_cost(SelfAttention(dim, head_dim=8, qkv_bias=True).eval(), torch.rand(batch, tokens, dim))
    projections = 2 * batch * tokens * dim * 4 * dim
    assert cost.flops == projections + 2 * (2 * batch * tokens * tokens * dim)


def test_shares_by_kind_of_operator():
    tower = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1), nn.GELU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 2)
    )
    limits = Machine(gflops=1.0, gigabytes=1.0)
    rows = {row.kind: row for row in shares(tower, torch.rand(1, 4, 6, 6), limits, repeats=2)}
    assert {kind: row.calls for kind, row in rows.items()} == {
        "depthwise convolution": 1, "1x1 convolution": 1, "other convolution": 1, "GELU": 1, "matrix product": 1,
    }  # fmt: skip
    gelu = 8 * 4 * 4 * 4 * 2  # bytes of [1, 8, 4, 4] in float32, read and written
    assert rows["GELU"].megabytes == pytest.approx(gelu / 1e6)
    assert rows["GELU"].bound == pytest.approx(gelu / 1e9 * 1e3)
    assert rows["other convolution"].gflop == pytest.approx(2 * 8 * 8 * 9 * 2 * 2 / 1e9)
    assert all(row.milliseconds > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu MHz\t\t: 2500.000\nflags\t\t: fpu avx2 avx512f amx_tile\n", 2 * 2.5 * 64),
        ("cpu MHz\t\t: 3000.000\nflags\t\t: fpu avx avx2 fma\n", 2 * 3.0 * 32),
        ("cpu MHz\t\t: 3000.000\nflags\t\t: fpu sse2\n", None),
        ("processor\t: 0\nFeatures\t: fp asimd\n", None),
    ],
)
def test_the_speed_on_paper(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert nominal_gflops(2, tmp_path / "cpuinfo") == (expected and pytest.approx(expected))
    assert nominal_gflops(2, tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_tile amx_int8 amx_bf16\n",
            ["amx_bf16", "amx_int8", "avx2", "avx512_vnni", "avx512f"],
        ),
        ("flags\t\t: fpu avx avx2\n\nflags\t\t: fpu avx avx2 avx_vnni\n", ["avx2"]),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", ["asimd", "bf16", "i8mm"]),
        ("processor\t: 0\n", []),
    ],
)
def test_the_instructions_that_matter(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert flops.cpu_flags(tmp_path / "cpuinfo") == expected
    assert flops.cpu_flags(tmp_path / "nothing") == []


def test_the_limits_are_those_of_the_fastest_kernel(monkeypatch):
    monkeypatch.setattr(flops, "_speeds", lambda dtype: iter([1.0, 3.0, 2.0]))
    assert machine().gflops == 3
