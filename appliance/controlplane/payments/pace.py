"""No more calls in a second than Stripe takes: a token bucket that callers wait for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from appliance.domain.clock import Clock

# "Record usage for billing with the API": 1,000 meter events in a second, in live mode.
METER_EVENTS_PER_S: Final = 1_000


class Pace:
    """`await turn()` before each call. Time and waiting are parameters."""

    def __init__(
        self,
        clock: Clock,
        *,
        per_s: int = METER_EVENTS_PER_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._per_s = per_s
        self._sleep = sleep
        self._next_s = clock.monotonic_s()

    async def turn(self) -> None:
        """Returns at once while there is room: a tenth of a second's calls may come in a row."""
        now_s = self._clock.monotonic_s()
        self._next_s = max(self._next_s, now_s - 0.1) + 1 / self._per_s
        if self._next_s > now_s:
            await self._sleep(self._next_s - now_s)
