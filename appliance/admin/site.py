"""The site as a whole: its status, its limits, its usage, its audit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, get_args

import msgspec

from appliance.admin.calls import Call, Layers, Lines, NoQuery, Services, Since, UsageQuery
from appliance.admin.deployments import list_deployments
from appliance.admin.errors import BadRequest
from appliance.admin.moments import parse_moment
from appliance.admin.nodes import list_nodes
from appliance.admin.tenants import limit_values
from appliance.domain.clock import iso
from appliance.domain.limits import UNLIMITED, Layer
from appliance.registry.audit import AuditRow, AuditVerdict
from appliance.registry.limits import LayerRow, LimitName
from appliance.wire.access import Me
from appliance.wire.admin import (
    AuditEntry,
    AuditVerification,
    LayerReport,
    LedgerRow,
    LedgerVerification,
    LimitsSet,
    SiteStatus,
    UsageColumn,
    UsageRow,
)

# Rows read from disk at a time: nothing holds a connection while a slow reader takes them.
LEDGER_PAGE_ROWS: Final = 500
AUDIT_PAGE_ROWS: Final = 1_000
_LIMIT_NAMES: Final[tuple[LimitName, ...]] = get_args(LimitName)
_COLUMNS: Final[tuple[UsageColumn, ...]] = get_args(UsageColumn)


async def status(services: Services, _call: Call[NoQuery, None]) -> SiteStatus:
    registry, site, live = services.registry, services.site, services.live
    nothing = Call("", "", NoQuery(), None)
    return SiteStatus(
        name=site.name,
        version=site.version,
        region=site.region,
        endpoint=live.endpoint(),
        ready=live.ready(),
        started_at=iso(site.started_at_ns),
        uptime_s=max(0, services.clock.wall_ns() - site.started_at_ns) // 1_000_000_000,
        tenants=len(await registry.tenants.list()),
        keys=await registry.keys.count(),
        requests_running=live.requests_running(),
        requests_queued=live.requests_queued(),
        records=await asyncio.to_thread(services.usage.records),
        sealing=await services.manifests.status(),
        sync=await services.sync.status(),
        entitlement=await services.sync.entitlement(),
        deployments=await list_deployments(services, nothing),
        nodes=await list_nodes(services, nothing),
        product=site.brand.product if site.brand else "",
        support=site.brand.support if site.brand else "",
    )


async def show_me(services: Services, call: Call[NoQuery, None]) -> Me:
    caller = call.caller
    assert caller is not None  # this answers the one at the other end
    assert caller.role is not None  # who may call this route at all
    reason = "" if caller.role != "viewer" else f"{caller.actor} has the role viewer: it may read."
    return Me(
        account=caller.actor,
        role=caller.role,
        groups=list(caller.groups),
        site=services.site.name,
        mapped=services.roles.mapped,
        read_only_reason=reason,
    )


def layer_view(services: Services, row: LayerRow) -> LayerReport:
    """`used` is shown only where a limit is in force: elsewhere nothing is counted."""
    used = services.limit_usage.used(row.layer, row.scope_id)
    sources = [row.base_source] if row.base != UNLIMITED else []
    if row.set != UNLIMITED:
        sources.append("set")
    if row.bounded:
        sources.append("entitlement")
    shown = {
        name: getattr(used, name)
        for name in _LIMIT_NAMES
        if getattr(row.in_force, name) is not None
    }
    return LayerReport(
        layer=row.layer.value,
        name=row.name,
        source=" + ".join(sources) or "none",
        limits=limit_values(row.in_force),
        used=msgspec.structs.replace(limit_values(UNLIMITED), **shown),
    )


async def show_limits(services: Services, call: Call[Layers, None]) -> list[LayerReport]:
    query = call.query
    rows = await services.registry.limits.show(
        tenant=query.tenant, environment=query.environment, key=query.key
    )
    return [layer_view(services, row) for row in rows]


async def set_limits(services: Services, call: Call[NoQuery, LimitsSet]) -> list[LayerReport]:
    """Answers with every layer that a request of the same tenant, environment and key passes."""
    body = call.body
    change: dict[LimitName, int | None] = {
        name: getattr(body, name)
        for name in _LIMIT_NAMES
        if getattr(body, name) is not msgspec.UNSET
    }
    if not change:
        raise BadRequest("No limit is named.", next_step=f"Name one of {', '.join(_LIMIT_NAMES)}.")
    await services.registry.limits.set(
        call.actor,
        Layer(body.layer),
        change,
        tenant=body.tenant,
        environment=body.environment,
        key=body.key,
    )
    scope = Layers(tenant=body.tenant, environment=body.environment, key=body.key)
    return await show_limits(services, Call(call.actor, "", scope, None))


def columns_of(text: str) -> list[UsageColumn]:
    """`env,model` -> ["environment", "model"], in the order asked for. Raises BadRequest."""
    columns: list[UsageColumn] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        found = next((c for c in _COLUMNS if c == ("environment" if word == "env" else word)), None)
        if found is None:
            raise BadRequest(
                f"by: usage has no column '{word}'.",
                next_step=f"Columns: {', '.join(_COLUMNS)}; env is short for environment.",
            )
        if found not in columns:
            columns.append(found)
    return columns


async def usage(services: Services, call: Call[UsageQuery, None]) -> Sequence[UsageRow]:
    query = call.query
    return await asyncio.to_thread(
        services.usage.usage,
        None if query.since is None else parse_moment(query.since, "since"),
        None if query.until is None else parse_moment(query.until, "until"),
        columns_of(query.by),
    )


async def ledger(services: Services, call: Call[Since, None]) -> Lines:
    return Lines(_ledger_rows(services, call.query.since))


async def _ledger_rows(services: Services, since_seq: int) -> AsyncIterator[LedgerRow]:
    while page := await asyncio.to_thread(services.usage.rows, since_seq, LEDGER_PAGE_ROWS):
        for row in page:
            yield row
        since_seq = page[-1].seq


async def verify_ledger(services: Services, _call: Call[NoQuery, None]) -> LedgerVerification:
    return await asyncio.to_thread(services.usage.verify)


def audit_view(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        seq=row.seq,
        at=iso(row.at_ns),
        actor=row.actor,
        action=row.action,
        object_kind=row.object_kind,
        object_id=row.object_id,
        object_name=row.object_name,
        before=None if row.before is None else msgspec.Raw(row.before.encode()),
        after=None if row.after is None else msgspec.Raw(row.after.encode()),
        sha256=row.sha256,
    )


async def audit(services: Services, call: Call[Since, None]) -> Lines:
    return Lines(_audit_entries(services, call.query.since))


async def _audit_entries(services: Services, since_seq: int) -> AsyncIterator[AuditEntry]:
    while page := await services.registry.audit.list(since=since_seq, count_max=AUDIT_PAGE_ROWS):
        for row in page:
            yield audit_view(row)
        since_seq = page[-1].seq


async def verify_audit(services: Services, _call: Call[NoQuery, None]) -> AuditVerification:
    return audit_verdict(await services.registry.audit.verify())


def audit_verdict(verdict: AuditVerdict) -> AuditVerification:
    return AuditVerification(
        ok=verdict.ok,
        entries=verdict.entries,
        head_sha256=verdict.head_sha256,
        problems=list(verdict.problems),
    )
