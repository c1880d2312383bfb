"""Choosing the next token (nucleus or top-p sampling, 1904.09751)."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def top_p_probabilities(logits: Float[Tensor, "n v"], top_p: float, temperature: float = 1.0) -> Float[Tensor, "n v"]:
    """The softmax restricted to the likeliest tokens that together have probability `top_p`, scaled to sum to one.

    Raises:
        ValueError: `top_p` is not in (0, 1], or `temperature` not positive.
    """
    if not 0 < top_p <= 1 or temperature <= 0:
        raise ValueError(f"top_p must be in (0, 1] and temperature positive, got {top_p} and {temperature}")
    ordered, index = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = ordered.masked_fill(before >= top_p, 0.0)  # the likeliest token is always kept
    return torch.zeros_like(kept).scatter(-1, index, kept / kept.sum(dim=-1, keepdim=True))


def draw(probabilities: Float[Tensor, "n v"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """One token for each row."""
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def sample_texts(
    next_logits: Callable[[Tensor], Tensor],
    count: int,
    *,
    start: int,
    end: int,
    longest: int,
    top_p: float,
    generator: torch.Generator,
) -> list[list[int]]:
    """Texts drawn token by token.

    Args:
        next_logits: tokens so far [n, t] -> logits of the next one [n, v].
        count: how many texts, drawn side by side.
        start: the first token, never said again.
        end: the token after which a text is over.
        longest: tokens of a text, start and end included.
        top_p: see `top_p_probabilities`.
        generator: of the draws, on the CPU.

    Returns:
        Each text's tokens, without start and end.
    """
    tokens = torch.full((count, 1), start)
    done = torch.zeros(count, dtype=torch.bool)
    while tokens.shape[1] < longest and not done.all():
        logits = next_logits(tokens).float().cpu()
        logits[:, start] = -torch.inf
        following = draw(top_p_probabilities(logits, top_p), generator).masked_fill(done, end)
        tokens = torch.cat([tokens, following[:, None]], dim=1)
        done |= following == end
    return [row[: row.index(end)] if end in row else row for row in tokens[:, 1:].tolist()]
