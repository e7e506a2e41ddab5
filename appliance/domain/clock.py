"""Time as a parameter: wall clock for records, monotonic clock for durations."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the product asks of time. Tests bring a clock they can turn."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; its zero means nothing."""
        ...


class SystemClock:
    """The clock of this machine."""

    __slots__ = ()

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_s(self) -> float:
        return time.monotonic()


def utc(wall_ns: int) -> datetime:
    """An aware UTC datetime, to the microsecond."""
    seconds, rest_ns = divmod(wall_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1_000)


def iso(wall_ns: int) -> str:
    """`2026-11-22T19:22:03.250Z`: milliseconds and a Z, the form used in every answer and log."""
    return utc(wall_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")
