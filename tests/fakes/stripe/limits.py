"""How much at once: calls per second, and one call in flight for each customer and meter.

Sources: page "Record usage for billing with the API" (1,000 calls a second, one concurrent call
per customer per meter), page "Rate limits" (429; `lock_timeout` for an object that another call
holds, with `stripe-should-retry: true`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.fakes.stripe.errors import ApiError

METER_EVENTS_PER_S = 1_000


def locked() -> ApiError:
    return ApiError(
        429,
        "This object cannot be accessed right now because another API request or Stripe process "
        "is currently accessing it.",
        code="lock_timeout",
        begun=False,
        retry=True,
    )


def rate_limited() -> ApiError:
    return ApiError(
        429, "Request rate limit exceeded.", kind="rate_limit_error", code="rate_limit", begun=False
    )


class Limits:
    """Counts in real time: the double's own clock may stand still."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self.meter_events_per_s = METER_EVENTS_PER_S
        self._second = -1
        self._calls = 0
        self._in_flight: set[tuple[str, str]] = set()
        self.overlaps: list[tuple[str, str]] = []  # (customer, event name) refused for overlapping

    def count(self) -> None:
        second = int(self._monotonic_s())
        if second != self._second:
            self._second, self._calls = second, 0
        self._calls += 1
        if self._calls > self.meter_events_per_s:
            raise rate_limited()

    @contextmanager
    def one_at_a_time(self, customer: str, event_name: str) -> Iterator[None]:
        pair = (customer, event_name)
        if pair in self._in_flight:
            self.overlaps.append(pair)
            raise locked()
        self._in_flight.add(pair)
        try:
            yield
        finally:
            self._in_flight.discard(pair)
