"""The time of the double: another clock, moved ahead at will."""

from appliance.domain.clock import Clock


class ShiftedClock:
    """A clock that runs with its base and can be moved ahead; never back."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self.shift_s = 0

    def wall_ns(self) -> int:
        return self._base.wall_ns() + self.shift_s * 1_000_000_000

    def monotonic_s(self) -> float:
        return self._base.monotonic_s() + self.shift_s

    def now_s(self) -> int:
        """Whole seconds since 1970 UTC: the precision of all moments of the v1 API."""
        return self.wall_ns() // 1_000_000_000

    def advance(self, seconds: int) -> None:
        assert seconds >= 0, "a double's clock does not go back"
        self.shift_s += seconds
