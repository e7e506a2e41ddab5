"""API keys. A secret appears in two answers only: of its creation and of its rotation."""

import msgspec

from appliance.admin.calls import Call, InEnvironment, NoQuery, Services
from appliance.admin.errors import BadRequest
from appliance.admin.moments import parse_moment
from appliance.admin.tenants import limit_values
from appliance.domain.clock import iso
from appliance.domain.limits import Limits
from appliance.registry.api_keys import KeyRow, NewKey
from appliance.registry.snapshot import Role
from appliance.wire.admin import (
    Key,
    KeyCreate,
    KeyCreated,
    KeyRotate,
    KeyState,
    KeyUpdate,
    LimitValues,
)


def limits_of(values: LimitValues) -> Limits:
    return Limits(
        requests_per_min=values.requests_per_min,
        tokens_per_min=values.tokens_per_min,
        tokens_per_day=values.tokens_per_day,
        concurrency=values.concurrency,
    )


def key_state(row: KeyRow, now_ns: int) -> KeyState:
    if row.suspended:
        return "suspended"
    if row.expires_at_ns is not None and row.expires_at_ns <= now_ns:
        return "expired"
    if row.retiring_until_ns is not None and row.retiring_until_ns > now_ns:
        return "retiring"
    return "active"


def key_view(row: KeyRow, now_ns: int) -> Key:
    old_until_ns = row.retiring_until_ns
    overlaps = old_until_ns is not None and old_until_ns > now_ns
    return Key(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        tenant=row.tenant_name,
        tenant_id=row.tenant_id,
        environment=row.environment_name,
        environment_id=row.environment_id,
        role=row.role.value,
        state=key_state(row, now_ns),
        expires_at=None if row.expires_at_ns is None else iso(row.expires_at_ns),
        old_secret_until=iso(old_until_ns) if overlaps and old_until_ns is not None else None,
        created_at=iso(row.created_at_ns),
        limits=limit_values(row.limits),
    )


def created_view(new: NewKey, now_ns: int) -> KeyCreated:
    view = key_view(new.row, now_ns)
    return KeyCreated(**msgspec.structs.asdict(view), key=new.secret)


async def list_keys(services: Services, call: Call[InEnvironment, None]) -> list[Key]:
    rows = await services.registry.keys.list(
        tenant=call.query.tenant, environment=call.query.environment
    )
    now_ns = services.clock.wall_ns()
    return [key_view(row, now_ns) for row in rows]


async def create_key(services: Services, call: Call[NoQuery, KeyCreate]) -> KeyCreated:
    body = call.body
    now_ns = services.clock.wall_ns()
    new = await services.registry.keys.create(
        call.actor,
        tenant=body.tenant,
        environment=body.environment,
        name=body.name,
        role=Role(body.role),
        expires_at_ns=_expiry(body.expires_at),
        test=body.test,
        limits=limits_of(body.limits),
    )
    return created_view(new, now_ns)


async def show_key(services: Services, call: Call[InEnvironment, None]) -> Key:
    row = await services.registry.keys.get(
        call.ref, tenant=call.query.tenant, environment=call.query.environment
    )
    return key_view(row, services.clock.wall_ns())


async def update_key(services: Services, call: Call[InEnvironment, KeyUpdate]) -> Key:
    body = call.body
    if body.never_expires and body.expires_at is not None:
        raise BadRequest("A key either expires or never does.", next_step="Give one of the two.")
    row = await services.registry.keys.update(
        call.actor,
        call.ref,
        tenant=call.query.tenant,
        environment=call.query.environment,
        name=body.name,
        role=None if body.role is None else Role(body.role),
        expires_at_ns=_expiry(body.expires_at),
        never_expires=body.never_expires,
    )
    return key_view(row, services.clock.wall_ns())


async def rotate_key(services: Services, call: Call[InEnvironment, KeyRotate]) -> KeyCreated:
    new = await services.registry.keys.rotate(
        call.actor,
        call.ref,
        tenant=call.query.tenant,
        environment=call.query.environment,
        overlap_s=call.body.overlap_s,
    )
    return created_view(new, services.clock.wall_ns())


async def suspend_key(services: Services, call: Call[InEnvironment, None]) -> Key:
    row = await services.registry.keys.suspend(
        call.actor, call.ref, tenant=call.query.tenant, environment=call.query.environment
    )
    return key_view(row, services.clock.wall_ns())


async def resume_key(services: Services, call: Call[InEnvironment, None]) -> Key:
    row = await services.registry.keys.resume(
        call.actor, call.ref, tenant=call.query.tenant, environment=call.query.environment
    )
    return key_view(row, services.clock.wall_ns())


async def delete_key(services: Services, call: Call[InEnvironment, None]) -> None:
    await services.registry.keys.delete(
        call.actor, call.ref, tenant=call.query.tenant, environment=call.query.environment
    )


def _expiry(text: str | None) -> int | None:
    return None if text is None else parse_moment(text, "expires_at")
