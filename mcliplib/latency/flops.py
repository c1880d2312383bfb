"""What a tower costs on paper: parameters and floating-point operations, as a whole and by layer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


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


def layer_costs(tower: nn.Module, example: Tensor) -> list[LayerCost]:
    """The cost of each layer (module without children) that has parameters or operations, in the order of the tower."""
    with _counter() as counter, torch.no_grad():
        tower(example)
    counts = counter.get_flop_counts()
    costs = []
    for name, module in tower.named_modules():
        flops = sum(counts.get(f"{type(tower).__name__}.{name}", {}).values())
        if next(module.children(), None) is None and (flops or _parameters(module)):
            costs.append(LayerCost(name, type(module).__name__, _parameters(module), flops))
    return costs


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
