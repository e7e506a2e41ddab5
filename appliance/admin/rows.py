"""The rows of the live stream, topic by topic, from the registry and from what runs."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from appliance.admin.calls import Services
from appliance.admin.deployments import model_view
from appliance.admin.known import LIMITS
from appliance.admin.nodes import seen_node
from appliance.admin.ports import LiveReplica
from appliance.admin.tenants import state_word
from appliance.domain.clock import iso
from appliance.domain.limits import Layer
from appliance.wire.fleet import Deployment, Replica
from appliance.wire.stream import (
    DeploymentRow,
    LimitRow,
    ReplicaRow,
    RequestRow,
    SiteRow,
    TenantRow,
    Topic,
)

Rows = Mapping[str, msgspec.Struct]
_EVENTS_MAX: Final = 200

RowSource = Callable[[Services], Awaitable[Rows]]


async def site_rows(services: Services) -> Rows:
    site, live, watch = services.site, services.live, services.watch
    traffic, rates = services.stream.known.traffic(), watch.site()
    sealing = await services.manifests.status()
    return {
        "site": SiteRow(
            name=site.name,
            version=site.version,
            region=site.region,
            endpoint=live.endpoint(),
            ready=live.ready(),
            started_at=iso(site.started_at_ns),
            requests_running=sum(replica.running for replica in traffic.replicas.values()),
            requests_queued=sum(traffic.queued.values()),
            streams_open=traffic.streams_open,
            connections_open=traffic.connections_open,
            requests_per_s=rates.requests_per_s,
            input_tokens_per_s=rates.input_tokens_per_s,
            output_tokens_per_s=rates.output_tokens_per_s,
            failures_per_min=rates.failures_per_min,
            first_token_p50_ms=rates.first_token_p50_ms,
            first_token_p95_ms=rates.first_token_p95_ms,
            records=traffic.records,
            unsealed=sealing.unsealed_records,
            product=site.brand.product if site.brand else "",
            accent=site.brand.accent if site.brand else "",
            support=site.brand.support if site.brand else "",
        )
    }


async def node_rows(services: Services) -> Rows:
    known = services.stream.known
    denied, holders = await known.denied(), await known.holders()
    return {row.id: seen_node(services, row, denied, holders) for row in await known.nodes()}


async def gpu_rows(services: Services) -> Rows:
    return await services.stream.known.gpus()


async def model_rows(services: Services) -> Rows:
    return {row.id: model_view(row) for row in await services.stream.known.models()}


async def deployment_rows(services: Services) -> Rows:
    known, watch = services.stream.known, services.watch
    traffic = known.traffic()
    found: dict[str, msgspec.Struct] = {}
    for each in await known.deployments():
        rates = watch.deployment(each.name)
        running = [
            traffic.replicas[replica.id].running
            for replica in each.replicas
            if replica.id in traffic.replicas
        ]
        found[each.id] = DeploymentRow(
            id=each.id,
            name=each.name,
            engine=each.engine,
            model=each.model,
            region=each.region,
            state=each.state,
            reason=each.reason,
            replicas_wanted=each.replicas_wanted,
            replicas_ready=sum(replica.state == "ready" for replica in each.replicas),
            requests_running=sum(running),
            requests_queued=traffic.queued.get(each.id, 0),
            output_tokens_per_s=rates.output_tokens_per_s,
            first_token_p95_ms=rates.first_token_p95_ms,
            cache_used_percent=_fullest(each.replicas),
            strategy=each.strategy,
            pins=each.pins,
            idle_s=each.idle_s,
            generation=each.generation,
            created_at=each.created_at,
        )
    return found


def _fullest(replicas: Sequence[Replica]) -> float | None:
    told = [each.cache_used_percent for each in replicas if each.cache_used_percent is not None]
    return max(told, default=None)


async def replica_rows(services: Services) -> Rows:
    known = services.stream.known
    seen = known.traffic().replicas
    return {
        replica.id: _replica_row(each, replica, seen.get(replica.id))
        for each in await known.deployments()
        for replica in each.replicas
    }


def _replica_row(deployment: Deployment, replica: Replica, live: LiveReplica | None) -> ReplicaRow:
    return ReplicaRow(
        id=replica.id,
        deployment=deployment.name,
        node=replica.node,
        state="ejected" if live is not None and live.ejected else replica.state,
        reason=replica.reason,
        pid=replica.pid,
        restarts=replica.restarts,
        slots=replica.slots,
        context_tokens=replica.context_tokens,
        requests_running=None if live is None else live.running,
        requests_waiting=replica.requests_waiting,
        output_tokens_per_s=replica.output_tokens_per_s,
        tokens_per_s=replica.tokens_per_s,
        cache_used_percent=replica.cache_used_percent,
        load_percent=replica.load_percent,
        failures=0 if live is None else live.failures,
        since=replica.since,
        generation=replica.generation,
        engine_version=replica.engine_version,
        gpus=tuple(replica.gpus),
    )


async def request_rows(services: Services) -> Rows:
    """Without a record there is no id that a person could follow; so the request's own is taken."""
    return {
        each.request_id: RequestRow(
            id=each.request_id,
            tenant=each.tenant,
            environment=each.environment,
            key=each.key,
            deployment=each.deployment,
            replica=each.replica_id,
            node=each.node,
            operation=each.operation,
            phase=each.phase,
            stream=each.stream,
            started_at=iso(each.opened_at_ns),
            input_tokens=each.prompt_tokens,
            output_tokens=each.output_tokens,
            client=each.client,
        )
        for each in services.stream.known.traffic().requests
    }


async def tenant_rows(services: Services) -> Rows:
    known, watch = services.stream.known, services.watch
    environments, keys = await known.sizes()
    created = await known.created()
    running = Counter(each.tenant_id for each in known.traffic().requests)
    fullest = _fullest_limits(services)
    found: dict[str, msgspec.Struct] = {}
    for row in await known.tenants():
        rates = watch.tenant(row.id)
        percent, limit = fullest.get(row.id, (None, ""))
        found[row.id] = TenantRow(
            id=row.id,
            name=row.name,
            plan=row.plan.value,
            state=state_word(suspended=row.suspended),
            created_at=created[row.id],
            environments=environments.get(row.id, 0),
            keys=keys.get(row.id, 0),
            requests_running=running[row.id],
            requests_per_s=rates.requests_per_s,
            output_tokens_per_s=rates.output_tokens_per_s,
            limit_percent=percent,
            limit=limit,
        )
    return found


async def environment_rows(services: Services) -> Rows:
    return await services.stream.known.environment_views()


async def key_rows(services: Services) -> Rows:
    return await services.stream.known.key_views()


async def limit_rows(services: Services) -> Rows:
    """Of the scopes that keys which could be used have; a limit of nobody limits nothing."""
    found: dict[str, msgspec.Struct] = {}
    for scope_id, (layer, name, limits) in services.stream.known.scopes().items():
        used = services.limit_usage.used(layer, scope_id)
        for limit in LIMITS:
            value = getattr(limits, limit)
            if value is not None:
                found[f"{layer.value}:{scope_id}:{limit}"] = LimitRow(
                    layer=layer.value,
                    scope_id=scope_id,
                    name=name,
                    limit=limit,
                    value=value,
                    used=getattr(used, limit) or 0,
                )
    return found


def _fullest_limits(services: Services) -> dict[str, tuple[float, str]]:
    """Tenant -> how full the fullest of its own limits is, in percent, and which that is."""
    found: dict[str, tuple[float, str]] = {}
    for tenant_id, limits in services.stream.known.tenant_limits():
        used = services.limit_usage.used(Layer.TENANT, tenant_id)
        shares = [(100 * (getattr(used, limit) or 0) / value, limit) for limit, value in limits]
        if shares:
            percent, limit = max(shares)
            found[tenant_id] = round(percent, 1), limit
    return found


async def sync_rows(services: Services) -> Rows:
    return {"sync": await services.sync.status()}


async def alert_rows(services: Services) -> Rows:
    return services.observer.alerts()


async def event_rows(services: Services) -> Rows:
    """The last ones; `/v1/events` has more."""
    return {str(event.seq): event for event in services.observer.events()[-_EVENTS_MAX:]}


SOURCES: Final[Mapping[Topic, RowSource]] = {
    "site": site_rows,
    "nodes": node_rows,
    "gpus": gpu_rows,
    "deployments": deployment_rows,
    "replicas": replica_rows,
    "requests": request_rows,
    "models": model_rows,
    "tenants": tenant_rows,
    "environments": environment_rows,
    "keys": key_rows,
    "limits": limit_rows,
    "sync": sync_rows,
    "alerts": alert_rows,
    "events": event_rows,
}
