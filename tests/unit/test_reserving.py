"""Reserved capacity in step with the registry: begun, changed and ended at its time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.domain.ids import DeploymentId
from appliance.reserving import Reserving
from appliance.scheduler.scheduler import Scheduler
from appliance.settings import Scheduling
from tests.fakes.registry import ACTOR, Site
from tests.fakes.replicas import target

MINUTE_S = 60


@dataclass
class Endpoint:
    """A gateway at which nothing happens but what is said here."""

    flying: list[Any] = field(default_factory=list)

    def apply(self, effects: Any) -> None:
        assert not effects

    def in_flight(self) -> list[Any]:
        return self.flying


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "registry.db")
    yield site
    site.close()


@dataclass
class Parts:
    reserving: Reserving
    scheduler: Scheduler
    deployment: DeploymentId

    def lanes(self, now_s: float) -> list[tuple[str, int]]:
        view = self.scheduler.view_of(self.deployment, now_s)
        assert view is not None
        return [(lane.spec.reservation_id, lane.spec.tokens_per_s) for lane in view.lanes]


@pytest.fixture
async def parts(site: Site) -> Parts:
    registry = site.registry
    await registry.tenants.create(ACTOR, "acme")
    made = await registry.deployments.create(ACTOR, "m", "external", url="http://127.0.0.1:1")
    scheduler = Scheduler(Scheduling())
    replicas = [
        target(n, tokens_per_s=r, deployment=made.id) for n, r in (("a", 60.0), ("b", None))
    ]
    scheduler.set_replicas(made.id, replicas, 0.0)
    endpoint: Any = Endpoint()
    reserving = Reserving(registry, scheduler, endpoint, Scheduling(), site.clock)
    return Parts(reserving, scheduler, made.id)


async def test_it_begins_changes_and_ends_at_its_time(site: Site, parts: Parts) -> None:
    reservations, clock = site.registry.reservations, site.clock
    begin_ns = clock.wall_ns() + MINUTE_S * 10**9
    room = parts.reserving.room(parts.deployment)
    assert (room.measured_tokens_per_s, room.tokens_per_s) == (60, 48), "what was not measured: 0"
    made = await reservations.create(
        ACTOR,
        tenant="acme",
        deployment="m",
        tokens_per_s=40,
        room=room,
        from_ns=begin_ns,
        until_ns=begin_ns + MINUTE_S * 10**9,
    )
    await parts.reserving.look()
    assert parts.lanes(clock.monotonic_s()) == []
    clock.turn(MINUTE_S)
    await parts.reserving.look()
    assert parts.lanes(clock.monotonic_s()) == [(made.id, 40)]
    await reservations.update(ACTOR, made.id, room, tokens_per_s=20)
    await parts.reserving.applied()
    assert parts.lanes(clock.monotonic_s()) == [(made.id, 20)]
    clock.turn(MINUTE_S)
    await parts.reserving.look()
    assert parts.lanes(clock.monotonic_s()) == []
    assert parts.reserving.figures() == []


async def test_a_deployment_that_went_and_came_back_has_its_lanes_again(
    site: Site, parts: Parts
) -> None:
    clock, room = site.clock, parts.reserving.room(parts.deployment)
    made = await site.registry.reservations.create(
        ACTOR, tenant="acme", deployment="m", tokens_per_s=40, room=room
    )
    await parts.reserving.look()
    parts.scheduler.set_replicas(parts.deployment, [], clock.monotonic_s())
    await parts.reserving.look()
    (figures,) = parts.reserving.figures()
    assert figures.reservation == made.id
    assert parts.reserving.room(parts.deployment).measured_tokens_per_s is None
    again = [target("c", tokens_per_s=60.0, deployment=parts.deployment)]
    parts.scheduler.set_replicas(parts.deployment, again, clock.monotonic_s())
    await parts.reserving.look()
    assert parts.lanes(clock.monotonic_s()) == [(made.id, 40)]
