"""bfloat16 only where the hardware has it: elsewhere it is imitated, and slow."""

import pytest
import torch

from mcliplib import precision
from mcliplib.precision import computed


@pytest.fixture(autouse=True)
def forget():
    yield
    precision._multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, "bfloat16"),
        ({"avx2": True, "amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        ({}, "float32"),
    ],
)
def test_auto_is_what_the_processor_multiplies(capabilities, expected, monkeypatch):
    precision._multiplies_bfloat16.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computed("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("bf16", "amx"), [(True, False), (False, True), (False, False)])
def test_an_older_pytorch_is_asked_in_its_own_way(bf16, amx, monkeypatch):
    """2.6, the oldest that is promised, has no `get_capabilities`."""
    precision._multiplies_bfloat16.cache_clear()
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert computed("auto", torch.device("cpu")) == ("bfloat16" if bf16 or amx else "float32")


def test_what_is_named_is_taken_and_other_devices_are_asked(monkeypatch):
    precision._multiplies_bfloat16.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert computed("auto", torch.device("cuda")) == "float32"
    assert computed("auto", torch.device("mps")) == "float32"
    for dtype in ("float32", "bfloat16"):
        assert computed(dtype, torch.device("cuda")) == dtype


def test_this_processor_is_judged_rightly():
    """Where bfloat16 is imitated, a product of it takes much longer than one of float32; never is "auto" that one."""
    if computed("auto", torch.device("cpu")) == "float32":
        pytest.skip("float32 is always safe")
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported()
