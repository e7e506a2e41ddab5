"""Keeps this node's certificate new, over the connection it protects."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from agent.errors import ApplianceAway, ApplianceRefused, IdentityBroken, WrongSite
from agent.identity import Identity, Life
from agent.joining import rejoin, renew
from appliance.domain.clock import Clock

log = logging.getLogger(__name__)

# A moment between the half and two thirds of a certificate's life: nodes that joined together do
# not come back together, and there is time to try again.
_FROM: Final = 0.5
_TO: Final = 2 / 3
_LOOK_S_MAX: Final = 60.0  # clocks are set, machines sleep: look at the clock again
_RETRY_S_MIN: Final = 2.0
_RETRY_S_MAX: Final = 300.0
_BACKDATED_S: Final = 600  # how long before its issue a certificate begins


def renewal_s(life: Life, chance: float) -> float:
    """When to renew, Unix seconds. `chance`: 0 ≤ chance < 1."""
    backdated_s = _BACKDATED_S if life.end_s - life.begin_s > _BACKDATED_S else 0
    begin_s = life.begin_s + backdated_s
    return begin_s + (life.end_s - begin_s) * (_FROM + (_TO - _FROM) * chance)


class Renewal:
    """Renews in time, and rejoins when time has run out. `run` never ends by itself."""

    def __init__(
        self,
        identity: Identity,
        clock: Clock,
        chance: Callable[[], float],
        renewed: Callable[[], None],
    ) -> None:
        """`renewed` is called when another certificate is there."""
        self._identity = identity
        self._clock = clock
        self._chance = chance
        self._renewed = renewed

    async def run(self) -> None:
        retry_s = _RETRY_S_MIN
        while True:
            try:
                await self._wait()
                await self._renew()
                if self._now_s() < renewal_s(self._identity.life(), 0.0):
                    retry_s = _RETRY_S_MIN
                    continue
                log.warning("the new certificate is old by this node's clock: set it")
            # OSError: the disk is full or gone. The old certificate is good for a while.
            except (
                *(ApplianceAway, ApplianceRefused, IdentityBroken, WrongSite),
                OSError,
            ) as error:
                log.warning("certificate not renewed", extra={"why": str(error)})
            await asyncio.sleep(retry_s * (1 + self._chance()))
            retry_s = min(retry_s * 2, _RETRY_S_MAX)

    async def _wait(self) -> None:
        due_s = renewal_s(self._identity.life(), self._chance())
        left_s = due_s - self._now_s()
        while left_s > 0:
            await asyncio.sleep(min(left_s, _LOOK_S_MAX))
            left_s = due_s - self._now_s()

    async def _renew(self) -> None:
        now_s = self._now_s()
        if now_s >= self._identity.life().end_s:
            await rejoin(self._identity, int(now_s))
            log.info("node rejoined", extra={"node_id": self._identity.node_id})
        else:
            await renew(self._identity)
            log.info("certificate renewed", extra={"node_id": self._identity.node_id})
        self._renewed()

    def _now_s(self) -> float:
        return self._clock.wall_ns() / 1e9
