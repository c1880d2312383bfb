"""Which number format the towers compute in while they train."""

from functools import cache
from typing import Literal

import torch

Computed = Literal["float32", "bfloat16"]
DType = Literal["auto", Computed]


def computed(dtype: DType, device: torch.device) -> Computed:
    """The format that a dtype stands for; "auto" is bfloat16 where the device's hardware multiplies it, else float32.

    Where it does not, PyTorch imitates bfloat16: the same numbers, but several times slower than float32, on CPUs with
    AVX2 only some sixty times.
    """
    if dtype != "auto":
        return dtype
    return "bfloat16" if _multiplies_bfloat16(device.type) else "float32"


@cache
def _multiplies_bfloat16(device_type: str) -> bool:
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch (2.6 for one), which knows x86 only
        probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(ask() for ask in probes if ask is not None)
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # Intel and AMD, Intel, Arm
