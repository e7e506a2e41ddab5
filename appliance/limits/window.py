"""A sliding window: how much was counted in the last minute, or day. Pure."""

from array import array
from itertools import accumulate
from typing import Final

MINUTE_SLOT_S: Final = 1
MINUTE_SPAN: Final = 60  # in slots
DAY_SLOT_S: Final = 300
DAY_SPAN: Final = 288


class Window:
    """Amounts by slot of time; `total` never falls below what any window of the span holds.

    Slots are numbers, `time // slot length`, so the window knows no unit. A slot is forgotten when
    even its last instant is a whole span old, which is why there is one more slot than the span
    has: what was counted stays between one span and one span and a slot. That errs on the side
    of the limit, by 1/60 for a minute and 1/288 for a day.

    `total` is right for the slot of the last `advance`. Constant time, amortised: each slot of
    time is cleared once, and silence costs nothing, because an empty ring is not cleared.
    """

    __slots__ = ("_counts", "_newest", "_now", "_size", "slot", "total")

    def __init__(self, span: int, slot: int) -> None:
        self._size = span + 1
        self._counts = array("q", bytes(8 * self._size))  # of the slots before this one
        self._now = 0  # of this slot
        self._newest = slot  # the last slot before this one that anything was added to
        self.slot = slot
        self.total = 0

    def add(self, amount: int) -> None:
        """Count `amount` in the slot of now."""
        self._now += amount
        self.total += amount

    def advance(self, slot: int) -> None:
        """Forget what is older than the span at `slot`. A clock that went back changes nothing."""
        if slot <= self.slot:
            return
        if self.total:
            size, counts = self._size, self._counts
            if self._now:
                counts[self.slot % size] = self._now
                self._now = 0
                self._newest = self.slot
            # Clearing the places of the slots that begin now drops those that were there before.
            for passed in range(max(self.slot + 1, slot - size + 1), slot + 1):
                place = passed % size
                self.total -= counts[place]
                counts[place] = 0
        self.slot = slot

    def add_at(self, slot: int, amount: int) -> None:
        """Count in an earlier slot; nothing if it is out of the window already."""
        if slot >= self.slot:
            self.add(amount)
        elif slot > self.slot - self._size:
            self._counts[slot % self._size] += amount
            self.total += amount
            self._newest = max(self._newest, slot)

    def free_at(self, amount: int) -> int | None:
        """The slot in which at least `amount` will have been forgotten if nothing is added.

        None: not that much is counted.
        """
        if amount <= 0:
            return self.slot
        if amount > self.total:
            return None
        # The place after now's holds the oldest slot, which is the first to be forgotten.
        oldest = (self.slot + 1) % self._size
        oldest_first = self._counts[oldest:] + self._counts[:oldest]
        for passed, freed in enumerate(accumulate(oldest_first), start=1):
            if freed >= amount:
                return self.slot + passed
        return self.slot + self._size

    @property
    def empty_at(self) -> int:
        """The slot in which all will have been forgotten."""
        if not self.total:
            return self.slot
        return (self.slot if self._now else self._newest) + self._size
