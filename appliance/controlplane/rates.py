"""How often each may ask: a bucket for each, refilled evenly."""

from collections import OrderedDict
from typing import Final

from appliance.controlplane.errors import TooManyRequests
from appliance.domain.clock import Clock

_KNOWN_MAX: Final = 10_000


class Rates:
    """`per_min` requests in a minute for each key, in one burst or evenly; more by `share`."""

    def __init__(self, clock: Clock, per_min: int) -> None:
        self._clock = clock
        self._per_min = per_min
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def spend(self, key: tuple[str, str], share: int = 1) -> None:
        """`share`: so many sites may be behind this key. Raises TooManyRequests."""
        now_s = self._clock.monotonic_s()
        per_min = self._per_min * share
        left, at_s = self._buckets.pop(key, (float(per_min), now_s))
        left = min(per_min, left + (now_s - at_s) * per_min / 60)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now_s)
        if len(self._buckets) > _KNOWN_MAX:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_s = int((1 - left) * 60 / per_min) + 1
            raise TooManyRequests(
                f"No more than {per_min} requests a minute are taken of one sender.",
                next_step=f"Ask again in {wait_s} s.",
                retry_after_s=wait_s,
            )
