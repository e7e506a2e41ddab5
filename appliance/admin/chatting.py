"""Passes with which administrators ask a model themselves.

What they ask goes through the endpoint as everything does: its limits, its queue, its ledger. It
counts as the use of a tenant of the site's own, under a key that says who asked.
"""

import re
from typing import Final

from appliance.admin.calls import Call, NoQuery, Route, Services
from appliance.admin.errors import NoSuchPass, TooManyPasses
from appliance.domain.clock import iso
from appliance.registry.api_keys import KeyRow
from appliance.registry.environments import EnvironmentRow
from appliance.registry.errors import AlreadyExists, NotFound
from appliance.registry.tenants import TenantRow
from appliance.wire.chat import ChatPass, ChatPassAsk

TENANT: Final = "site-console"
_SETTING: Final = "console-tenant"  # the id of that tenant, whatever it is called by now
PASS_S: Final = 900
PASSES_MAX: Final = 64
_NAMES_TRIED: Final = 9
_NS: Final = 1_000_000_000
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9]+")


async def give_pass(services: Services, call: Call[NoQuery, ChatPassAsk]) -> ChatPass:
    deployment = await services.registry.deployments.get(call.body.model)
    tenant = await _tenant(services, call.actor)
    environment = await _environment(services, call.actor, tenant, deployment.region)
    await _clear(services, call.actor, tenant)
    now_ns = services.clock.wall_ns()
    made = await services.registry.keys.create(
        call.actor,
        tenant=tenant.id,
        environment=environment.id,
        name=_name(call.actor, now_ns),
        expires_at_ns=now_ns + PASS_S * _NS,
    )
    return ChatPass(
        id=made.row.id,
        key=made.secret,
        endpoint=services.live.endpoint(),
        tenant=tenant.name,
        environment=environment.name,
        expires_at=iso(now_ns + PASS_S * _NS),
    )


async def end_pass(services: Services, call: Call[NoQuery, None]) -> None:
    """Only a pass: other keys are for those who may delete them."""
    tenant_id = await services.registry.settings.get(_SETTING)
    try:
        row = await services.registry.keys.get(call.ref)
    except NotFound:
        row = None
    if row is None or row.tenant_id != tenant_id or row.expires_at_ns is None:
        raise NoSuchPass(
            f"There is no pass {call.ref!r}, or it has ended.",
            next_step="Passes end by themselves.",
        )
    await services.registry.keys.delete(call.actor, row.id)


async def _tenant(services: Services, actor: str) -> TenantRow:
    """The site's own; made when it is needed first, or when somebody deleted it."""
    registry = services.registry
    before = await registry.settings.get(_SETTING)
    if before is not None:
        try:
            return await registry.tenants.get(before)
        except NotFound:
            pass
    for number in range(1, _NAMES_TRIED + 1):
        try:
            made = await registry.tenants.create(
                actor, TENANT if number == 1 else f"{TENANT}-{number}"
            )
        except AlreadyExists:
            known = await registry.settings.get(_SETTING)
            if known == before:
                continue
            return await registry.tenants.get(known or TENANT)  # another was quicker
        await registry.settings.set(actor, _SETTING, made.id)
        return made
    raise AlreadyExists(
        f"Tenants of the names {TENANT}, {TENANT}-2 … are there already, and none is the site's.",
        next_step=f"Rename one of them: `cic tenant update {TENANT} --name NAME`.",
    )


async def _environment(
    services: Services, actor: str, tenant: TenantRow, region: str
) -> EnvironmentRow:
    """One for each region: an environment may only use what is in its own.

    Also where it is suspended or may not use all: who did that meant it, and no other is made.
    """
    environments = services.registry.environments
    known = await environments.list(tenant=tenant.id)
    there = [row for row in known if row.region == region]
    if there:
        return next((row for row in there if row.name == region), there[0])
    taken = {row.name for row in known}
    name = next(n for n in (region, *(f"{region}-{i}" for i in range(2, 99))) if n not in taken)
    try:
        return await environments.create(actor, name, tenant=tenant.id, region=region)
    except AlreadyExists:  # another was quicker
        return await environments.get(name, tenant=tenant.id)


async def _clear(services: Services, actor: str, tenant: TenantRow) -> None:
    """Delete what expired; refuse where too many live."""
    now_ns = services.clock.wall_ns()
    keys = services.registry.keys
    living = [row for row in await keys.list(tenant=tenant.id) if row.expires_at_ns is not None]
    expired = [row for row in living if _over(row, now_ns)]
    for row in expired:
        await keys.delete(actor, row.id)
    if len(living) - len(expired) >= PASSES_MAX:
        raise TooManyPasses(
            f"{PASSES_MAX} passes are in use.", next_step="Try again when some have ended."
        )


def _over(row: KeyRow, now_ns: int) -> bool:
    return row.expires_at_ns is not None and row.expires_at_ns <= now_ns


def _name(actor: str, now_ns: int) -> str:
    """Who asked, as the name of a key: `1000-anna-…`."""
    who = _NOT_IN_NAMES.sub("-", actor).strip("-")[:40] or "somebody"
    return f"{who}-{now_ns:x}"


ROUTES: Final = (
    Route(
        *("POST", "/v1/chat-passes", "Let an administrator ask a model", give_pass, ChatPass),
        body=ChatPassAsk,
        status=201,
        secrets=frozenset({"key"}),
        role="operator",
    ),
    Route(
        *("DELETE", "/v1/chat-passes/{ref}", "End such a pass", end_pass),
        answer=None,
        role="operator",
    ),
)
