"""How far to trust a share of hits: percentile bootstrap intervals."""

import torch
from torch import Tensor


class Score(float):
    """A share of hits in [0, 1], with the ends of its 95% bootstrap interval and the number of trials.

    Behaves as its value: `score > 0.1`, `f"{score:.1%}"`.

    Attributes:
        low: lower end of the interval.
        high: upper end.
        n: trials.
    """

    low: float
    high: float
    n: int

    def __new__(cls, value: float, low: float, high: float, n: int) -> "Score":
        score = super().__new__(cls, value)
        score.low, score.high, score.n = low, high, n
        return score

    def __getnewargs__(self) -> tuple[float, float, float, int]:  # type: ignore[override]
        return float(self), self.low, self.high, self.n

    def __repr__(self) -> str:
        return f"{float(self):.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.n})"

    def record(self) -> dict[str, float]:
        """The four numbers, for a results file."""
        return {"value": float(self), "low": self.low, "high": self.high, "n": self.n}


def score(hits: Tensor, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Score:
    """The mean of hits [N] (booleans) and its interval over resampled trials.

    Resampling N yes/no trials with replacement is a binomial draw, so no resampled set has to be built.

    Raises:
        ValueError: there is no trial.
    """
    n = hits.numel()
    if n == 0:
        raise ValueError("no trials to score")
    mean = hits.double().mean().item()
    generator = torch.Generator().manual_seed(seed)
    counts = torch.binomial(torch.full((draws,), float(n)), torch.full((draws,), mean), generator=generator)
    ends = torch.quantile(counts.double() / n, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return Score(mean, ends[0].item(), ends[1].item(), n)
