"""Tenants and environments."""

from appliance.admin.calls import Call, Cascade, CascadeInTenant, InTenant, NoQuery, Services
from appliance.domain.clock import iso
from appliance.domain.limits import Limits, Plan
from appliance.registry.environments import EnvironmentRow
from appliance.registry.tenants import TenantRow
from appliance.wire.admin import (
    Environment,
    EnvironmentCreate,
    EnvironmentUpdate,
    LimitValues,
    Tenant,
    TenantCreate,
    TenantUpdate,
)
from appliance.wire.admin_message import State


def limit_values(limits: Limits) -> LimitValues:
    return LimitValues(
        requests_per_min=limits.requests_per_min,
        tokens_per_min=limits.tokens_per_min,
        tokens_per_day=limits.tokens_per_day,
        concurrency=limits.concurrency,
    )


def state_word(*, suspended: bool) -> State:
    return "suspended" if suspended else "active"


def tenant_view(row: TenantRow) -> Tenant:
    return Tenant(
        id=row.id,
        name=row.name,
        plan=row.plan.value,
        state=state_word(suspended=row.suspended),
        created_at=iso(row.created_at_ns),
        limits=limit_values(row.limits),
    )


def environment_view(row: EnvironmentRow) -> Environment:
    return Environment(
        id=row.id,
        name=row.name,
        tenant=row.tenant_name,
        tenant_id=row.tenant_id,
        region=row.region,
        models=None if row.models is None else list(row.models),
        state=state_word(suspended=row.suspended),
        created_at=iso(row.created_at_ns),
        limits=limit_values(row.limits),
    )


async def list_tenants(services: Services, _call: Call[NoQuery, None]) -> list[Tenant]:
    return [tenant_view(row) for row in await services.registry.tenants.list()]


async def create_tenant(services: Services, call: Call[NoQuery, TenantCreate]) -> Tenant:
    plan = Plan(call.body.plan)
    return tenant_view(await services.registry.tenants.create(call.actor, call.body.name, plan))


async def show_tenant(services: Services, call: Call[NoQuery, None]) -> Tenant:
    return tenant_view(await services.registry.tenants.get(call.ref))


async def update_tenant(services: Services, call: Call[NoQuery, TenantUpdate]) -> Tenant:
    plan = None if call.body.plan is None else Plan(call.body.plan)
    return tenant_view(
        await services.registry.tenants.update(call.actor, call.ref, name=call.body.name, plan=plan)
    )


async def suspend_tenant(services: Services, call: Call[NoQuery, None]) -> Tenant:
    return tenant_view(await services.registry.tenants.suspend(call.actor, call.ref))


async def resume_tenant(services: Services, call: Call[NoQuery, None]) -> Tenant:
    return tenant_view(await services.registry.tenants.resume(call.actor, call.ref))


async def delete_tenant(services: Services, call: Call[Cascade, None]) -> None:
    await services.registry.tenants.delete(call.actor, call.ref, cascade=call.query.cascade)


async def list_environments(services: Services, call: Call[InTenant, None]) -> list[Environment]:
    rows = await services.registry.environments.list(tenant=call.query.tenant)
    return [environment_view(row) for row in rows]


async def create_environment(
    services: Services, call: Call[NoQuery, EnvironmentCreate]
) -> Environment:
    body = call.body
    return environment_view(
        await services.registry.environments.create(
            call.actor, body.name, tenant=body.tenant, region=body.region, models=body.models
        )
    )


async def show_environment(services: Services, call: Call[InTenant, None]) -> Environment:
    return environment_view(
        await services.registry.environments.get(call.ref, tenant=call.query.tenant)
    )


async def update_environment(
    services: Services, call: Call[InTenant, EnvironmentUpdate]
) -> Environment:
    body = call.body
    return environment_view(
        await services.registry.environments.update(
            call.actor,
            call.ref,
            tenant=call.query.tenant,
            name=body.name,
            region=body.region,
            models=body.models,
            all_models=body.all_models,
        )
    )


async def suspend_environment(services: Services, call: Call[InTenant, None]) -> Environment:
    return environment_view(
        await services.registry.environments.suspend(call.actor, call.ref, tenant=call.query.tenant)
    )


async def resume_environment(services: Services, call: Call[InTenant, None]) -> Environment:
    return environment_view(
        await services.registry.environments.resume(call.actor, call.ref, tenant=call.query.tenant)
    )


async def delete_environment(services: Services, call: Call[CascadeInTenant, None]) -> None:
    await services.registry.environments.delete(
        call.actor, call.ref, tenant=call.query.tenant, cascade=call.query.cascade
    )
