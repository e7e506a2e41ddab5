"""A sliding window: how much was counted in the last minute, or day. Pure."""

from array import array
from typing import Final

MINUTE_SLOT_S: Final = 1
MINUTE_SPAN: Final = 60  # in slots
DAY_SLOT_S: Final = 300
DAY_SPAN: Final = 288
MINUTE_S: Final = float(MINUTE_SPAN * MINUTE_SLOT_S)
DAY_S: Final = float(DAY_SPAN * DAY_SLOT_S)

# The shortest wait: a smaller one, added to a time, may be rounded away, and never be over.
_LEAST_S: Final = 1e-6


class Window:
    """Amounts by slot of time; `total` never falls below what any window of the span holds.

    A slot is forgotten when the last that was counted in it is a whole span old. `advance`, the
    quick way, only knows whole slots, so it is late by up to one; `forget` does the rest, where a
    request would be refused for it. `total` is right for the slot of the last `advance`.

    Constant time, amortised: each slot of time is cleared once, and silence costs nothing, because
    an empty ring is not cleared.
    """

    __slots__ = (
        "_counts",
        "_last_s",
        "_latest_s",
        "_now",
        "_size",
        "_slot_s",
        "_span_s",
        "slot",
        "total",
    )

    def __init__(self, span: int, slot_s: int, slot: int) -> None:
        """`span` slots of `slot_s` seconds; `slot`, the one of now, is `time // slot_s`."""
        self._slot_s = slot_s
        self._span_s = span * slot_s
        self._size = span + 1  # what is in the oldest slot may be younger than the span
        self._counts = array("q", bytes(8 * self._size))  # of the slots before this one
        self._latest_s = array("d", bytes(8 * self._size))  # when each was last added to
        self._now = 0  # of this slot
        self._last_s = 0.0  # when anything was last added
        self.slot = slot
        self.total = 0

    def add(self, amount: int, now_s: float) -> None:
        """Count `amount` in the slot of now."""
        self._now += amount
        self.total += amount
        self._last_s = now_s

    def advance(self, slot: int) -> None:
        """Forget the slots that are over at `slot`. A clock that went back changes nothing."""
        if slot <= self.slot:
            return
        if self.total:
            size, counts = self._size, self._counts
            if self._now:
                counts[self.slot % size] = self._now
                self._latest_s[self.slot % size] = self._last_s
                self._now = 0
            # Clearing the places of the slots that begin now drops those that were there before.
            for passed in range(max(self.slot + 1, slot - size + 1), slot + 1):
                place = passed % size
                self.total -= counts[place]
                counts[place] = 0
        self.slot = slot

    def forget(self, now_s: float) -> bool:
        """Forget the oldest slot if its last instant of use is a span old; whether it was so.

        After `advance`: then no other slot can be that old.
        """
        oldest = (self.slot + 1) % self._size
        amount = self._counts[oldest]
        if not amount or now_s - self._latest_s[oldest] < self._span_s:
            return False
        self._counts[oldest] = 0
        self.total -= amount
        return True

    def add_at(self, at_s: float, amount: int, now_s: float) -> None:
        """Count at an earlier moment, or take back from it; nothing if that is a span ago."""
        slot = int(at_s // self._slot_s)
        if now_s - at_s >= self._span_s:
            return
        if amount > 0:
            self._last_s = max(self._last_s, at_s) if self.total else at_s
        self.total += amount
        if slot >= self.slot:
            self._now += amount
            return
        place = slot % self._size
        if amount > 0:
            latest_s = max(self._latest_s[place], at_s) if self._counts[place] else at_s
            self._latest_s[place] = latest_s
        self._counts[place] += amount

    def free_in_s(self, amount: int, now_s: float) -> float | None:
        """Until at least `amount` will have been forgotten if nothing is added; at most the span.

        None: not that much is counted.
        """
        if amount <= 0:
            return 0.0
        if amount > self.total:
            return None
        # The place after now's holds the oldest slot, which is the first to be forgotten.
        for passed in range(1, self._size):
            place = (self.slot + passed) % self._size
            amount -= self._counts[place]
            if amount <= 0:
                return self._left_s(self._latest_s[place], now_s)
        return self._left_s(self._last_s, now_s)

    def empty_in_s(self, now_s: float) -> float:
        """Until all will have been forgotten."""
        return self._left_s(self._last_s, now_s) if self.total else 0.0

    def _left_s(self, counted_s: float, now_s: float) -> float:
        return max(_LEAST_S, self._span_s - (now_s - counted_s))
