"""What a pass over shards read, what it skipped, and why."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Skip:
    """One sample that was left out: where it stood and why."""

    shard: str
    key: str
    reason: str


@dataclass
class ReadReport:
    """Counts of one pass over shards; give it to `read_shards` and read it afterwards.

    A sample is skipped for one of: ``corrupt image``, ``giant image``, ``missing image``, ``missing caption``,
    ``bad metadata``. A shard that ends too early is in ``broken_shards``; its readable samples count as read.
    """

    read: int = 0
    skipped: list[Skip] = field(default_factory=list)
    broken_shards: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> Counter[str]:
        """How many samples were skipped for each reason."""
        return Counter(skip.reason for skip in self.skipped)

    @property
    def skipped_share(self) -> float:
        """Skipped samples as a share of all samples met, 0 to 1."""
        met = self.read + len(self.skipped)
        return len(self.skipped) / met if met else 0.0

    def __str__(self) -> str:
        parts = [f"{self.read:,} samples read"]
        for reason, count in sorted(self.reasons.items()):
            first = next(skip for skip in self.skipped if skip.reason == reason)
            parts.append(f"{count} skipped: {reason} (first: {first.key} in {first.shard})")
        parts += [f"{shard} is broken: {why}" for shard, why in self.broken_shards.items()]
        return "; ".join(parts)
