"""How many tokens an engine makes a second now, from its counter. Pure."""

from typing import Final

_SPAN_S: Final = 1.5  # shorter ones say more of the clock than of the engine
_OLD_S: Final = 10.0  # looks further apart than this tell of the past, not of now


class OutputRate:
    """Of one process. Times are monotonic."""

    __slots__ = ("_at_s", "_tokens", "per_s")

    def __init__(self) -> None:
        self.per_s: float | None = None  # None: not measured
        self._at_s: float | None = None
        self._tokens = 0

    def look(self, tokens: int, now_s: float) -> None:
        """`tokens`: all that it ever made. A counter that fell is one that began anew."""
        if self._at_s is not None:
            passed_s = now_s - self._at_s
            if passed_s < _SPAN_S and tokens >= self._tokens:
                return
            known = passed_s <= _OLD_S and tokens >= self._tokens
            self.per_s = round((tokens - self._tokens) / passed_s, 1) if known else None
        self._at_s, self._tokens = now_s, tokens
