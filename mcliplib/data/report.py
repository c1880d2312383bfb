"""What a pass over shards read, what it skipped, and why."""

from collections import Counter
from dataclasses import dataclass, field

from mcliplib.errors import UserError

_ENOUGH_TO_JUDGE = 100  # samples met before the share of skipped ones can end a pass early


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

    def skip(self, skip: Skip, max_skipped: float) -> None:
        """Note a sample that was left out.

        Raises:
            UserError: as `check_share`, once enough samples were met to judge.
        """
        self.skipped.append(skip)
        if self.read + len(self.skipped) >= _ENOUGH_TO_JUDGE:
            self.check_share(max_skipped)

    def check_share(self, max_skipped: float) -> None:
        """Refuse a pass that left out too much.

        Raises:
            UserError: more than this share (0 to 1) was skipped.
        """
        if self.skipped_share > max_skipped:
            raise UserError(
                f"{self.skipped_share:.0%} of the samples cannot be used, more than the {max_skipped:.0%} allowed: "
                f"{self}. Repair the shards, or raise max_skipped if that is acceptable"
            )

    def __str__(self) -> str:
        parts = [f"{self.read:,} samples read"]
        for reason, count in sorted(self.reasons.items()):
            first = next(skip for skip in self.skipped if skip.reason == reason)
            parts.append(f"{count} skipped: {reason} (first: {first.key} in {first.shard})")
        parts += [f"{shard} is broken: {why}" for shard, why in self.broken_shards.items()]
        return "; ".join(parts)
