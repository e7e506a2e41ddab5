"""Reserved capacity: what is promised, to whom, and how it is kept."""

from typing import Final

import msgspec

from appliance.admin.calls import Call, NoQuery, Route, Services
from appliance.admin.moments import parse_moment
from appliance.domain.capacity import promised_at
from appliance.domain.clock import iso
from appliance.registry.reservations import ReservationRow
from appliance.scheduler.attainment import Minute
from appliance.wire.reservations import (
    AttainedMinute,
    Capacity,
    Reservation,
    ReservationCreate,
    ReservationState,
    ReservationUpdate,
)


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ended=true`: those that are over, the newest first."""

    ended: bool = False


async def list_reservations(services: Services, call: Call[Ended, None]) -> list[Reservation]:
    now_ns = services.clock.wall_ns()
    rows = await services.registry.reservations.list(now_ns, ended=call.query.ended)
    return [_reservation(services, row, now_ns) for row in rows]


async def show_reservation(services: Services, call: Call[NoQuery, None]) -> Reservation:
    row = await services.registry.reservations.get(call.ref)
    shown = _reservation(services, row, services.clock.wall_ns())
    minutes = tuple(_minute(each) for each in services.reserving.kept(row.id).minutes)
    return msgspec.structs.replace(shown, minutes=minutes)


async def create_reservation(
    services: Services, call: Call[NoQuery, ReservationCreate]
) -> Reservation:
    body = call.body
    deployment = await services.registry.deployments.get(body.model)
    row = await services.registry.reservations.create(
        call.actor,
        tenant=body.tenant,
        environment=body.environment,
        deployment=deployment.id,
        tokens_per_s=body.tokens_per_s,
        room=services.reserving.room(deployment.id),
        from_ns=None if body.starts_at is None else parse_moment(body.starts_at, "starts_at"),
        until_ns=None if body.ends_at is None else parse_moment(body.ends_at, "ends_at"),
        priority=body.priority,
    )
    await services.reserving.applied()
    return _reservation(services, row, services.clock.wall_ns())


async def update_reservation(
    services: Services, call: Call[NoQuery, ReservationUpdate]
) -> Reservation:
    body = call.body
    before = await services.registry.reservations.get(call.ref)
    row = await services.registry.reservations.update(
        call.actor,
        call.ref,
        services.reserving.room(before.deployment_id),
        tokens_per_s=body.tokens_per_s,
        priority=body.priority,
        until_ns=parse_moment(body.ends_at, "ends_at") if body.ends_at else None,
        no_end=body.ends_at == "",
    )
    await services.reserving.applied()
    return _reservation(services, row, services.clock.wall_ns())


async def end_reservation(services: Services, call: Call[NoQuery, None]) -> Reservation:
    row = await services.registry.reservations.end(call.actor, call.ref)
    await services.reserving.applied()
    return _reservation(services, row, services.clock.wall_ns())


async def list_capacity(services: Services, _call: Call[NoQuery, None]) -> list[Capacity]:
    now_ns = services.clock.wall_ns()
    reservations = await services.registry.reservations.list(now_ns)
    found = []
    for deployment in await services.registry.deployments.list():
        room = services.reserving.room(deployment.id)
        promises = [row.promise for row in reservations if row.deployment_id == deployment.id]
        promised = promised_at(promises, now_ns)
        found.append(
            Capacity(
                model=deployment.name,
                measured_tokens_per_s=room.measured_tokens_per_s,
                headroom_percent=room.headroom_percent,
                promisable_tokens_per_s=room.tokens_per_s,
                promised_tokens_per_s=promised,
                free_tokens_per_s=max(0, room.tokens_per_s - promised),
            )
        )
    return found


def _reservation(services: Services, row: ReservationRow, now_ns: int) -> Reservation:
    kept = services.reserving.kept(row.id)
    return Reservation(
        id=row.id,
        tenant=row.tenant_name,
        environment=row.environment_name,
        model=row.deployment_name,
        tokens_per_s=row.tokens_per_s,
        priority=row.priority,
        state=_state(row, now_ns),
        starts_at=iso(row.from_ns),
        ends_at=None if row.until_ns is None else iso(row.until_ns),
        created_at=iso(row.created_at_ns),
        ended_at=None if row.ended_at_ns is None else iso(row.ended_at_ns),
        slipping=kept.slipping,
        waiting=kept.waiting,
        attained=_minute(kept.minutes[-1]) if kept.minutes else None,
    )


def _state(row: ReservationRow, now_ns: int) -> ReservationState:
    if row.ended_at_ns is not None or (row.until_ns is not None and row.until_ns <= now_ns):
        return "ended"
    return "active" if row.from_ns <= now_ns else "scheduled"


def _minute(minute: Minute) -> AttainedMinute:
    percent = minute.attained_percent
    return AttainedMinute(
        at=iso(minute.start_ns),
        promised=minute.promised,
        offered=minute.offered,
        delivered=minute.delivered,
        attained_percent=None if percent is None else round(percent, 1),
    )


ROUTES: Final = (
    Route(
        *("GET", "/v1/reservations", "List reserved capacity", list_reservations),
        answer=list[Reservation],
        query=Ended,
    ),
    Route(
        *("POST", "/v1/reservations", "Reserve capacity", create_reservation, Reservation),
        body=ReservationCreate,
        status=201,
        grows=True,
    ),
    Route("GET", "/v1/reservations/{ref}", "Show a reservation", show_reservation, Reservation),
    Route(
        *("PATCH", "/v1/reservations/{ref}", "Change a reservation", update_reservation),
        answer=Reservation,
        body=ReservationUpdate,
        grows=True,
    ),
    Route("POST", "/v1/reservations/{ref}/end", "End a reservation", end_reservation, Reservation),
    Route("GET", "/v1/capacity", "What can be reserved", list_capacity, list[Capacity]),
)
