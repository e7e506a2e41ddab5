"""Reserved capacity at work: the scheduler's lanes in step with the registry, and what became of
each promise.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from appliance.admin.ports import Kept, ReservationFigures
from appliance.domain.clock import Clock
from appliance.domain.ids import DeploymentId
from appliance.gateway.app import Gateway
from appliance.registry.registry import Registry
from appliance.registry.reservations import ReservationRow, Room
from appliance.registry.snapshot import Snapshot
from appliance.scheduler.attainment import Attainment, Minute
from appliance.scheduler.lanes import LaneSpec, LaneView
from appliance.scheduler.scheduler import Scheduler
from appliance.settings import Scheduling

LOOK_S: Final = 1.0


class Reserving:
    """ReservationSource of the admin API. What was attained is known since the start."""

    def __init__(
        self,
        registry: Registry,
        scheduler: Scheduler,
        gateway: Gateway,
        settings: Scheduling,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._scheduler = scheduler
        self._gateway = gateway
        self._headroom_percent = settings.headroom_percent
        self._clock = clock
        self._rows: Sequence[ReservationRow] = ()
        self._stale = True  # the registry may have changed
        self._looking = asyncio.Lock()  # what was read first is not to come last
        self._laned: frozenset[DeploymentId] = frozenset()
        self._attained: dict[str, Attainment] = {}
        self._waiting: dict[str, int] = {}
        registry.on_change(self._changed)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Bring what is in force now to the scheduler, and take in how it stands."""
        async with self._looking:
            if self._stale:
                self._stale = False
                try:
                    self._rows = await self._registry.reservations.list(self._clock.wall_ns())
                except BaseException:
                    self._stale = True
                    raise
            self._bring()

    def _bring(self) -> None:
        now_ns, now_s = self._clock.wall_ns(), self._clock.monotonic_s()
        if not self._rows and not self._laned:
            return
        in_force = [row for row in self._rows if row.promise.holds_at(now_ns)]
        specs = _by_deployment(in_force)
        for deployment_id in specs.keys() | self._laned:
            self._gateway.apply(
                self._scheduler.set_lanes(deployment_id, specs.get(deployment_id, ()), now_s)
            )
        self._laned = frozenset(specs)
        self._take_in(in_force, now_s, now_ns)

    def room(self, deployment_id: DeploymentId) -> Room:
        """What the ready replicas of a deployment were measured to make in a second."""
        view = self._scheduler.view_of(deployment_id, self._clock.monotonic_s())
        rates = [] if view is None else [each.target.tokens_per_s for each in view.replicas]
        measured = [rate for rate in rates if rate]
        whole = int(sum(measured)) if measured else None
        return Room(whole, self._headroom_percent)

    def kept(self, reservation_id: str) -> Kept:
        """How its promise is kept. Nothing is known of one that is not in force."""
        attained = self._attained.get(reservation_id)
        minutes: Sequence[Minute] = () if attained is None else attained.minutes
        return Kept(
            slipping=attained is not None and attained.slipping,
            waiting=self._waiting.get(reservation_id, 0),
            minutes=minutes,
        )

    def figures(self) -> list[ReservationFigures]:
        """Of those that are in force, as they were last looked at."""
        return [
            ReservationFigures(
                reservation=row.id,
                tenant=row.tenant_name,
                environment=row.environment_name or "",
                model=row.deployment_name,
                tokens_per_s=row.tokens_per_s,
                kept=self.kept(row.id),
            )
            for row in self._rows
            if row.id in self._attained
        ]

    async def applied(self) -> None:
        """Bring a change that was just made to the scheduler."""
        self._stale = True
        await self.look()

    def _changed(self, _snapshot: Snapshot) -> None:
        self._stale = True

    def _take_in(self, in_force: Sequence[ReservationRow], now_s: float, now_ns: int) -> None:
        flying: Counter[str] = Counter()
        for each in self._gateway.in_flight():
            if each.reservation_id is not None and each.phase == "streaming":
                flying[each.reservation_id] += each.prompt_tokens + each.output_tokens
        views = self._views(now_s)
        self._attained = {row.id: self._attained.get(row.id) or Attainment() for row in in_force}
        self._waiting = {}
        for row in in_force:
            view = views.get(row.id)
            if view is None:  # no replica of it was ever ready: nothing can be delivered
                view = LaneView(_spec(row), 0.0, 0, 0.0, 0, 0, 0.0)
            self._waiting[row.id] = view.waiting
            self._attained[row.id].look(view, flying[row.id], now_ns)

    def _views(self, now_s: float) -> Mapping[str, LaneView]:
        return {
            lane.spec.reservation_id: lane
            for deployment in self._scheduler.view(now_s)
            for lane in deployment.lanes
        }


def _by_deployment(rows: Sequence[ReservationRow]) -> dict[DeploymentId, list[LaneSpec]]:
    specs: dict[DeploymentId, list[LaneSpec]] = {}
    for row in rows:
        specs.setdefault(row.deployment_id, []).append(_spec(row))
    return specs


def _spec(row: ReservationRow) -> LaneSpec:
    return LaneSpec(row.id, row.tenant_id, row.environment_id, row.tokens_per_s, row.priority)
