"""A clock that stands still until a test turns it."""

START_NS = 1_800_000_000_000_000_000  # 2027-01-15T08:00:00Z


class ManualClock:
    """Wall and monotonic time that move together, by hand."""

    def __init__(self, wall_ns: int = START_NS) -> None:
        self._start_ns = wall_ns
        self._passed_ns = 0

    def wall_ns(self) -> int:
        return self._start_ns + self._passed_ns

    def monotonic_s(self) -> float:
        return self._passed_ns / 1_000_000_000

    def turn(self, seconds: float) -> None:
        self._passed_ns += round(seconds * 1_000_000_000)
