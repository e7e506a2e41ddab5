"""What the ledger counts of its own work, for the metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class LedgerCounters:
    """Written by the ledger's thread, read by anyone; all only ever grow."""

    commits: int = 0
    failures: int = 0  # groups that the disk or a rule refused
    items: int = 0  # openings and settlements in committed groups
    commit_s: float = 0.0  # spent in transactions, waiting for the disk included

    def add(self, items: int, seconds: float, *, failed: bool) -> None:
        """Count one group."""
        self.commit_s += seconds
        if failed:
            self.failures += 1
            return
        self.commits += 1
        self.items += items
