"""What the ledger counts of its own work, for the metrics."""

from dataclasses import dataclass, field
from typing import Final

GROUP_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048)


@dataclass(slots=True)
class LedgerCounters:
    """Written by the ledger's thread, read by anyone; all only ever grow.

    `group_sizes[i]` counts the groups with at most `GROUP_BOUNDS[i]` items and more than the bound
    before it.
    """

    commits: int = 0
    failures: int = 0  # groups that the disk or a rule refused
    items: int = 0  # openings and settlements in committed groups
    commit_s: float = 0.0  # spent in transactions, waiting for the disk included
    group_sizes: list[int] = field(default_factory=lambda: [0] * len(GROUP_BOUNDS))

    def add(self, items: int, seconds: float, *, failed: bool) -> None:
        """Count one group."""
        self.commit_s += seconds
        if failed:
            self.failures += 1
            return
        self.commits += 1
        self.items += items
        for index, bound in enumerate(GROUP_BOUNDS):
            if items <= bound:
                self.group_sizes[index] += 1
                break
