"""Attention in steps (bf16 training on CPUs) is attention: outputs and gradients, against PyTorch's kernel in fp32."""

import pytest
import torch

from mcliplib.layers import attention as module
from mcliplib.layers.attention import attend


@pytest.mark.parametrize("tokens", [7, 40])  # on either side of what counts as short
@pytest.mark.parametrize("mask", ["none", "causal", "seen"])
def test_outputs_and_gradients(tokens, mask, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(3, 2, tokens, 8, generator=generator).bfloat16().float().requires_grad_() for _ in range(3)]
    low = [one.detach().bfloat16().requires_grad_() for one in exact]
    seen = torch.rand(3, 1, tokens, tokens, generator=generator) < 0.5
    seen |= torch.eye(tokens, dtype=torch.bool)
    options = {"scale": 0.7, "causal": mask == "causal", "seen": seen if mask == "seen" else None}
    steps = []
    in_steps = module.attention_in_steps
    monkeypatch.setattr(module, "attention_in_steps", lambda *a, **k: steps.append(1) or in_steps(*a, **k))
    weights = torch.randn(3, 2, tokens, 8, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*low, **options)
    (found.float() * weights).sum().backward()
    expected = attend(*exact, **options)
    (expected * weights).sum().backward()
    assert found.dtype == torch.bfloat16
    assert steps == [1]
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)
    for one, other in zip(low, exact, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=0.05, atol=0.05)
