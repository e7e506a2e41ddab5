"""How fast an engine really is, from its own counters while it serves. Pure: looks in, figures out.

A warm-up measures one moment with our own text. Requests of tenants tell more: over a window in
which every slot was busy, tokens over time are the engine's capacity. Windows with idle slots can
only show that it is faster than was thought.
"""

from dataclasses import dataclass
from typing import Final

from agent.engines.kind import Load

WINDOW_S: Final = 10.0
_NEW: Final = 0.3  # the weight of a new window beside all before
_WORTH_TELLING: Final = 0.1  # a smaller change changes no decision
_PREFILL_TOKENS_MIN: Final = 256  # fewer say more of the clock than of the engine


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second over all slots; None: not measured."""

    tokens_per_s: float | None
    prefill_tokens_per_s: float | None


class Capacity:
    """The looks at one process. Times are monotonic."""

    __slots__ = ("_begin", "_begin_s", "_full", "_now", "_slots", "_told")

    def __init__(self, slots: int, speed: Speed) -> None:
        """`slots`: requests it works on at once; `speed`: as measured at the warm-up."""
        self._slots = max(1, slots)
        self._now = self._told = speed
        self._begin: Load | None = None  # of the present window
        self._begin_s = 0.0
        self._full = True  # every look of this window saw every slot busy

    def look(self, load: Load | None, now_s: float) -> Speed | None:
        """Take in what was seen (None: no answer); the speed where it is worth telling anew."""
        begin = self._begin
        if load is None or load.requests == 0 or begin is None or _began_anew(begin, load):
            # An idle stretch belongs to no window.
            self._begin = load if load is not None and load.requests > 0 else None
            self._begin_s = now_s
            self._full = load is not None and load.requests >= self._slots
            return None
        self._full = self._full and load.requests >= self._slots
        took_s = now_s - self._begin_s
        if took_s < WINDOW_S:
            return None
        rate = (load.generated_tokens - begin.generated_tokens) / took_s
        self._now = Speed(
            _blend(self._now.tokens_per_s, rate, whole=self._full),
            _blend(self._now.prefill_tokens_per_s, _prefill(begin, load), whole=True),
        )
        self._begin, self._begin_s = load, now_s
        self._full = load.requests >= self._slots
        if _same(self._now.tokens_per_s, self._told.tokens_per_s) and _same(
            self._now.prefill_tokens_per_s, self._told.prefill_tokens_per_s
        ):
            return None
        self._told = self._now
        return self._now


def _began_anew(before: Load, load: Load) -> bool:
    return load.generated_tokens < before.generated_tokens


def _prefill(begin: Load, end: Load) -> float | None:
    """Prompt tokens over the seconds the engine itself says they took."""
    if begin.prefill is None or end.prefill is None:
        return None
    tokens = end.prefill[0] - begin.prefill[0]
    took_s = end.prefill[1] - begin.prefill[1]
    return tokens / took_s if tokens >= _PREFILL_TOKENS_MIN and took_s > 0 else None


def _blend(known: float | None, seen: float | None, *, whole: bool) -> float | None:
    if seen is None or seen <= 0:
        return known
    if known is None:
        return seen if whole else None
    return known + _NEW * (seen - known) if whole else max(known, seen)


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= _WORTH_TELLING * b
