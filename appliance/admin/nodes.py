"""Nodes and regions."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import msgspec

from appliance.admin.calls import Call, NoQuery, Services
from appliance.admin.ports import NodeLive
from appliance.domain.clock import iso
from appliance.domain.ids import NodeId
from appliance.registry.nodes import NodeRow, Wish
from appliance.registry.regions import RegionRow
from appliance.wire.agent import PreemptionNotice
from appliance.wire.fleet import (
    Node,
    NodeCreate,
    NodeNotice,
    NodeNoticeGive,
    NodeUpdate,
    NodeWishSet,
    Region,
    RegionCreate,
    RegionUpdate,
)


def node_view(row: NodeRow, live: NodeLive | None) -> Node:
    """A node whose agent never said hello is `joining`."""
    if live is None:
        live = NodeLive("joining")
    elif live.state == "maintenance" and row.wish == "serving" and live.notice is None:
        live = replace(live, state="ready")  # resumed a moment ago: the fleet has not heard of it
    elif live.state == "ready" and row.wish != "serving":
        live = replace(live, state="draining")  # likewise
    return Node(
        id=row.id,
        name=row.name,
        region=row.region,
        state=live.state,
        agent_version=live.agent_version,
        cores=live.cores,
        memory_bytes=live.memory_bytes,
        gpus=list(live.gpus),
        engines=list(live.engines),
        last_seen_at=live.last_seen_at,
        created_at=iso(row.created_at_ns),
        reason=live.reason,
        wish=row.wish,
        wish_reason=row.wish_reason,
        wished_by=row.wish_actor,
        wished_at=None if row.wished_at_ns is None else iso(row.wished_at_ns),
        notice=None if live.notice is None else _notice_view(live.notice),
        health=live.health,
        driver=live.driver,
        engine_versions=dict(live.engine_versions),
    )


def _notice_view(notice: PreemptionNotice) -> NodeNotice:
    return NodeNotice(
        source=notice.source,
        at=iso(notice.at_ns),
        detail=notice.detail,
        seen_at=iso(notice.seen_ns),
    )


def region_view(row: RegionRow) -> Region:
    return Region(name=row.name, multiplier_bp=row.multiplier_bp, created_at=iso(row.created_at_ns))


def seen_node(
    services: Services, row: NodeRow, denied: Collection[NodeId], holders: Collection[NodeId]
) -> Node:
    """A node with what its agent says; `denied` and `holders`: by their certificates."""
    live = services.live.node(row.id) or NodeLive(
        "joining", reason=_unheard(row.name, denied=row.id in denied, joined=row.id in holders)
    )
    return node_view(row, live)


def _unheard(name: str, *, denied: bool, joined: bool) -> str:
    """Why a node is only expected, with what to do."""
    if denied:
        return (
            "Its certificates were revoked. It comes back with a new token:"
            f" `cic node token create --node {name}`."
        )
    if joined:
        return (
            "It has joined, and was not heard since this appliance started. See whether the machine"
            " is on, its cable, the firewall before the node API's port here, and whether its"
            " agent runs: `cic agent`."
        )
    return (
        "Its agent has never spoken. Make a token and type what it says on the machine:"
        f" `cic node token create --node {name}`."
    )


async def _after(services: Services, row: NodeRow) -> Node:
    """The node as it is after a change."""
    await services.live.caught_up()
    return await _seen(services, row)


async def _seen(services: Services, row: NodeRow) -> Node:
    certificates = services.registry.node_certificates
    return seen_node(services, row, await certificates.denied(), await certificates.holders())


async def list_nodes(services: Services, _call: Call[NoQuery, None]) -> list[Node]:
    certificates = services.registry.node_certificates
    denied, holders = await certificates.denied(), await certificates.holders()
    rows = await services.registry.nodes.list()
    return [seen_node(services, row, denied, holders) for row in rows]


async def create_node(services: Services, call: Call[NoQuery, NodeCreate]) -> Node:
    row = await services.registry.nodes.create(call.actor, call.body.name, region=call.body.region)
    return await _seen(services, row)


async def show_node(services: Services, call: Call[NoQuery, None]) -> Node:
    return await _seen(services, await services.registry.nodes.get(call.ref))


async def update_node(services: Services, call: Call[NoQuery, NodeUpdate]) -> Node:
    row = await services.registry.nodes.update(
        call.actor, call.ref, name=call.body.name, region=call.body.region
    )
    return await _seen(services, row)


async def drain_node(services: Services, call: Call[NoQuery, NodeWishSet]) -> Node:
    return await _wish(services, call, "draining", call.body.reason)


async def maintain_node(services: Services, call: Call[NoQuery, NodeWishSet]) -> Node:
    return await _wish(services, call, "maintenance", call.body.reason)


async def suspend_node(services: Services, call: Call[NoQuery, None]) -> Node:
    """The other nouns' word for maintenance."""
    return await _wish(services, call, "maintenance", "")


async def resume_node(services: Services, call: Call[NoQuery, None]) -> Node:
    """Whatever was wished of the node, or said of its end by people, is over."""
    await services.registry.notices.withdraw(call.actor, call.ref)
    return await _wish(services, call, "serving", "")


async def _wish(services: Services, call: Call[Any, Any], wish: Wish, reason: str) -> Node:
    row = await services.registry.nodes.wish(call.actor, call.ref, wish, reason=reason)
    return await _after(services, row)


async def give_notice(services: Services, call: Call[NoQuery, NodeNoticeGive]) -> Node:
    """The node is emptied by then, as when its cloud says so."""
    at_ns = services.clock.wall_ns() + call.body.in_s * 1_000_000_000
    given = await services.registry.notices.give(call.actor, call.ref, at_ns, call.body.reason)
    node_id, notice = given
    view = await _after(services, await services.registry.nodes.get(node_id))
    if view.notice is None:  # its agent has not said hello: no fleet tells of it
        view = msgspec.structs.replace(view, notice=_notice_view(notice))
    return view


async def delete_node(services: Services, call: Call[NoQuery, None]) -> None:
    row = await services.registry.nodes.get(call.ref)
    await services.registry.node_tokens.revoke_of(call.actor, row.name)
    await services.registry.nodes.delete(call.actor, row.id)


async def list_regions(services: Services, _call: Call[NoQuery, None]) -> list[Region]:
    return [region_view(row) for row in await services.registry.regions.list()]


async def create_region(services: Services, call: Call[NoQuery, RegionCreate]) -> Region:
    return region_view(
        await services.registry.regions.create(call.actor, call.body.name, call.body.multiplier_bp)
    )


async def show_region(services: Services, call: Call[NoQuery, None]) -> Region:
    return region_view(await services.registry.regions.get(call.ref))


async def update_region(services: Services, call: Call[NoQuery, RegionUpdate]) -> Region:
    return region_view(
        await services.registry.regions.update(
            call.actor, call.ref, multiplier_bp=call.body.multiplier_bp
        )
    )


async def delete_region(services: Services, call: Call[NoQuery, None]) -> None:
    await services.registry.regions.delete(call.actor, call.ref)
