"""Bursts of the running appliance: what they need of the fleet, and how people see them."""

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from appliance.domain.clock import Clock, iso
from appliance.domain.money import dollars, micro_of
from appliance.fleet.burst.members import NodeState
from appliance.fleet.burst.offers import lasts_s
from appliance.fleet.burst.service import BurstDesk, NodeSeen, Planned, Standing
from appliance.fleet.burst.sky import SkyPilot, Taken
from appliance.fleet.burst.task import Joining, text
from appliance.fleet.service import Fleet
from appliance.registry.bursts import BurstSpec, MemberRow, Offer
from appliance.registry.errors import InvalidValue, NotFound
from appliance.registry.registry import Registry
from appliance.scheduler.scheduler import Scheduler
from appliance.settings import Bursting
from appliance.wire.burst import (
    Burst,
    BurstMember,
    BurstOffer,
    BurstPlan,
    BurstPlanned,
    BurstState,
    BurstUp,
)
from appliance.wire.fleet import NodeState as FleetState
from appliance.wire.node_tokens import NodeTokenCreate, NodeTokenCreated

ACTOR: Final = "appliance:bursts"
_STATES: Final[dict[FleetState, NodeState]] = {
    "joining": "joining",
    "ready": "ready",
    "draining": "draining",
    "maintenance": "empty",
    "unreachable": "silent",
    "failed": "failed",
}

Token = Callable[[str, NodeTokenCreate], Awaitable[NodeTokenCreated]]


@dataclass(frozen=True, slots=True)
class BurstNodes:
    """NodeDesk of the bursts: their nodes, by name, in this appliance's fleet."""

    registry: Registry
    fleet: Fleet
    scheduler: Scheduler
    clock: Clock
    token: Token  # makes one, for an actor
    started_s: float  # of this appliance, monotonic

    async def invite(self, node_name: str, ttl_s: int) -> Joining:
        made = await self.token(ACTOR, NodeTokenCreate(ttl_s=ttl_s, node=node_name))
        return Joining(made.server, made.token)

    def seen(self, node_name: str) -> NodeSeen:
        node = self.fleet.node_named(node_name)
        if node is None:
            # Since this appliance started at the longest: it may have been about to say hello.
            silent_s = self.clock.monotonic_s() - self.started_s
            return NodeSeen("absent", notice=False, busy=False, silent_s=silent_s)
        now_s = self.clock.monotonic_s()
        views = self.scheduler.view(now_s)
        busy = any(
            replica.running > 0
            for view in views
            for replica in view.replicas
            if replica.target.node_name == node_name
        )
        return NodeSeen(
            _STATES[node.state],
            notice=node.notice is not None,
            busy=busy,
            silent_s=now_s - node.seen_s,
        )

    async def empty(self, node_name: str, reason: str) -> None:
        try:
            await self.registry.nodes.wish(ACTOR, node_name, "maintenance", reason=reason[:200])
        except NotFound:  # it never joined
            return

    async def dismiss(self, node_name: str) -> None:
        await self.registry.node_tokens.revoke_of(ACTOR, node_name)
        try:
            await self.registry.nodes.delete(ACTOR, node_name)
        except NotFound:
            return


def burst_desk(
    registry: Registry, nodes: BurstNodes, settings: Bursting, clock: Clock
) -> BurstDesk:
    """With SkyPilot in the interpreter of the settings, and the clouds' credentials of ours."""
    clouds = SkyPilot(settings.python or sys.executable, os.environ)
    return BurstDesk(registry=registry, clouds=clouds, nodes=nodes, settings=settings, clock=clock)


class Bursts:
    """BurstSource of the admin API."""

    def __init__(self, desk: BurstDesk) -> None:
        self._desk = desk

    async def plan(self, asked: BurstPlan) -> BurstPlanned:
        """Raises InvalidValue, FleetError."""
        spec = spec_of(asked)
        planned = await self._desk.plan(spec)
        candidates = planned.ranking.candidates
        first = candidates[0].price_micro * spec.nodes if candidates else 0
        life_s = lasts_s(spec.budget_micro, first) if candidates else 0
        task = self._desk.task("burst", candidates, life_s) if candidates else None
        return BurstPlanned(
            offers=_offers(planned),
            chosen=None if planned.chosen is None else _taken(planned.chosen),
            problem=planned.problem,
            lasts_s=life_s,
            task="" if task is None else text(task),
        )

    async def up(self, actor: str, asked: BurstUp) -> Burst:
        """Raises InvalidValue, FleetError, RegistryError."""
        row = await self._desk.up(actor, asked.name, spec_of(asked.plan))
        return view(await self._desk.standing(row.id))

    async def down(self, actor: str, ref: str) -> Burst:
        """Raises RegistryError."""
        row = await self._desk.down(actor, ref)
        return view(await self._desk.standing(row.id))

    async def list(self) -> list[Burst]:
        return [view(standing) for standing in await self._desk.standings()]

    async def show(self, ref: str) -> Burst:
        """Raises RegistryError."""
        return view(await self._desk.standing(ref))


def spec_of(asked: BurstPlan) -> BurstSpec:
    """Raises InvalidValue: an amount that is none."""
    try:
        budget_micro = micro_of(asked.budget)
        price_max_micro = None if asked.price_max is None else micro_of(asked.price_max)
    except ValueError as error:
        raise InvalidValue(f"{error}.", next_step="Amounts are US dollars.") from error
    return BurstSpec(
        gpu=asked.gpu,
        gpus=asked.gpus,
        nodes=asked.nodes,
        spot=asked.spot,
        budget_micro=budget_micro,
        clouds=asked.clouds,
        regions=asked.regions,
        price_max_micro=price_max_micro,
        idle_s=asked.idle_s,
    )


def view(standing: Standing) -> Burst:
    row, spec = standing.row, standing.row.spec
    return Burst(
        id=row.id,
        name=row.name,
        state=_state(standing),
        reason=row.reason or next((m.reason for m in reversed(standing.members) if m.reason), ""),
        gpu=spec.gpu,
        gpus=spec.gpus,
        nodes=spec.nodes,
        spot=spec.spot,
        budget=dollars(spec.budget_micro),
        spent=dollars(standing.spent_micro),
        idle_s=spec.idle_s,
        members=[_member(member) for member in standing.members],
        created_at=iso(row.created_at_ns),
        ended_at=None if row.ended_at_ns is None else iso(row.ended_at_ns),
    )


def _state(standing: Standing) -> BurstState:
    if standing.row.ended_at_ns is not None:
        return "ended"
    if standing.row.wish == "down":
        return "ending"
    running = sum(1 for member in standing.members if member.state == "running")
    return "running" if running == standing.row.spec.nodes else "starting"


def _member(member: MemberRow) -> BurstMember:
    return BurstMember(
        node=member.node_name,
        state=member.state,
        reason=member.reason,
        since=iso(member.since_ns),
        cluster=member.cluster,
        offer=None if member.offer is None else _offer(member.offer),
        price=dollars(member.price_micro),
    )


def _offers(planned: Planned) -> list[BurstOffer]:
    ranking = planned.ranking
    return [_offer(offer) for offer in ranking.candidates] + [
        _offer(refused.offer, refused.reason) for refused in ranking.refused
    ]


def _offer(offer: Offer, reason: str = "") -> BurstOffer:
    return BurstOffer(
        cloud=offer.cloud,
        region=offer.region,
        instance_type=offer.instance_type,
        gpu=offer.gpu,
        gpus=offer.gpus,
        spot=offer.spot,
        price=dollars(offer.price_micro),
        reason=reason,
    )


def _taken(taken: Taken) -> BurstOffer:
    price_micro = 0 if taken.price_micro is None else taken.price_micro
    return _offer(
        Offer(
            *(taken.cloud, taken.region, taken.instance_type, taken.gpu, taken.gpus),
            *(taken.spot, price_micro),
        )
    )
