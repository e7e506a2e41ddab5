"""Reads the counters of the endpoint each second, so that rates are known whenever one asks."""

import asyncio
import logging
from collections.abc import Collection
from typing import Final, Self

from appliance.admin.pace import Counted, Pace, Rates
from appliance.admin.ports import Traffic, TrafficSource
from appliance.domain.clock import Clock

_EVERY_S: Final = 1.0
_SITE: Final = "site"

log = logging.getLogger(__name__)


class Watch:
    """One of an appliance. Started and stopped with it."""

    def __init__(self, source: TrafficSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._pace = Pace(source.bands_s)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def traffic(self) -> Traffic:
        """As it is at this moment."""
        return self._source.traffic()

    def site(self) -> Rates:
        return self._pace.of(_SITE)

    def deployment(self, name: str) -> Rates:
        return self._pace.of(f"d:{name}")

    def tenant(self, tenant_id: str) -> Rates:
        """Without percentiles."""
        return self._pace.of(f"t:{tenant_id}", percentiles=False)

    def tenants(self) -> Collection[str]:
        """Ids of those that asked anything since the start."""
        return self._source.traffic().tenants.keys()

    def sample(self) -> None:
        """Read the counters now."""
        traffic = self._source.traffic()
        counted: dict[str, Counted] = {_SITE: traffic.site}
        counted |= {f"d:{name}": each for name, each in traffic.deployments.items()}
        counted |= {f"t:{tenant_id}": each for tenant_id, each in traffic.tenants.items()}
        self._pace.take(self._clock.monotonic_s(), counted)

    async def _run(self) -> None:
        while True:
            try:
                self.sample()
            # The boundary of one sample: a defect in it must not end the figures for good.
            except Exception:
                log.exception("counters not read")
            await asyncio.sleep(_EVERY_S)
