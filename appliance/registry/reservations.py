"""Capacity reservations: so many tokens a second of a deployment, for a tenant or an environment.

What is promised is bounded by what was measured: the sum of all promises of a deployment never
exceeds its room, at any moment. A row is never removed; what it promised stays on record.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from appliance.domain.capacity import Promise, earliest_ns, promised_most
from appliance.domain.ids import DeploymentId, EnvironmentId, TenantId
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.deployments import find_deployment
from appliance.registry.environments import EnvironmentRow, find_environment
from appliance.registry.errors import (
    AlreadyExists,
    CapacityExceeded,
    CapacityUnknown,
    InvalidValue,
)
from appliance.registry.names import check_count, only
from appliance.registry.store import Change, Store
from appliance.registry.tenants import find_tenant

KIND: Final = "reservation"
TOKENS_PER_S_MAX: Final = 10**9
PRIORITY_MAX: Final = 100
ENDED_SHOWN: Final = 50
_NS: Final = 1_000_000_000
_ALL: Final = (
    "SELECT r.*, t.name AS tenant_name, e.name AS environment_name, d.name AS deployment_name"
    " FROM reservations r JOIN tenants t ON t.id = r.tenant_id"
    " JOIN deployments d ON d.id = r.deployment_id"
    " LEFT JOIN environments e ON e.id = r.environment_id"
)
# Neither ended nor over.
_LIVING: Final = _ALL + " WHERE r.ended_at_ns IS NULL AND (r.until_ns IS NULL OR r.until_ns > :now)"


@dataclass(frozen=True, slots=True)
class ReservationRow:
    """`environment_id` None: the tenant's, in all its environments. `until_ns` None: no end."""

    id: str
    tenant_id: TenantId
    tenant_name: str
    environment_id: EnvironmentId | None
    environment_name: str | None
    deployment_id: DeploymentId
    deployment_name: str
    tokens_per_s: int
    priority: int
    from_ns: int
    until_ns: int | None
    created_at_ns: int
    ended_at_ns: int | None

    @property
    def promise(self) -> Promise:
        return Promise(self.tokens_per_s, self.from_ns, self.until_ns)


@dataclass(frozen=True, slots=True)
class Room:
    """What a deployment was measured to make in a second, and the share of it that stays free."""

    measured_tokens_per_s: int | None  # by all its ready replicas; None: not measured
    headroom_percent: int

    @property
    def tokens_per_s(self) -> int:
        """That may be promised."""
        return (self.measured_tokens_per_s or 0) * (100 - self.headroom_percent) // 100


class Reservations:
    """`ref` is an id; tenants, environments and deployments are ids or names."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(
        self,
        actor: str,
        *,
        tenant: str,
        deployment: str,
        tokens_per_s: int,
        room: Room,
        environment: str | None = None,
        from_ns: int | None = None,
        until_ns: int | None = None,
        priority: int = 0,
    ) -> ReservationRow:
        """`from_ns` None: now. Raises CapacityExceeded, CapacityUnknown, AlreadyExists."""

        def run(change: Change) -> ReservationRow:
            owner = find_tenant(change.connection, tenant)
            served = find_deployment(change.connection, deployment)
            of = _environment(change.connection, environment, owner.id, served)
            row = ReservationRow(
                id=change.new_id(KIND),
                tenant_id=owner.id,
                tenant_name=owner.name,
                environment_id=None if of is None else of.id,
                environment_name=None if of is None else of.name,
                deployment_id=served.id,
                deployment_name=served.name,
                tokens_per_s=tokens_per_s,
                priority=priority,
                from_ns=change.now_ns if from_ns is None else max(from_ns, change.now_ns),
                until_ns=until_ns,
                created_at_ns=change.now_ns,
                ended_at_ns=None,
            )
            others = _living(change.connection, change.now_ns, served.id)
            _refuse_second(row, others)
            _check(row, others, room)
            _write(change.connection, row)
            change.record("create", KIND, row.id, served.name, None, row)
            return row

        return await self._store.change(actor, run)

    async def list(self, now_ns: int, *, ended: bool = False) -> list[ReservationRow]:
        """Those that are or will be in force, by whose they are; or the last that were."""
        past = (
            " WHERE r.ended_at_ns IS NOT NULL OR r.until_ns <= :now"
            f" ORDER BY coalesce(r.ended_at_ns, r.until_ns) DESC LIMIT {ENDED_SHOWN}"
        )
        query = _ALL + past if ended else _LIVING + " ORDER BY t.name, e.name, d.name, r.from_ns"
        return await self._store.read(
            lambda connection: [_row(row) for row in connection.execute(query, {"now": now_ns})]
        )

    async def get(self, ref: str) -> ReservationRow:
        """Also one that has ended. Raises NotFound."""
        return await self._store.read(lambda connection: _find(connection, ref))

    async def update(
        self,
        actor: str,
        ref: str,
        room: Room,
        *,
        tokens_per_s: int | None = None,
        priority: int | None = None,
        until_ns: int | None = None,
        no_end: bool = False,
    ) -> ReservationRow:
        """None leaves a figure as it is; `no_end` takes its end away.

        `room` is that of its deployment. More than before is checked as a new one is.
        """

        def run(change: Change) -> ReservationRow:
            before = _refuse_ended(_find(change.connection, ref), change.now_ns)
            if until_ns is not None and until_ns <= change.now_ns:
                raise InvalidValue(
                    "A promise cannot have ended before it was said so.",
                    next_step=f"End it now: `cic reservation end {before.id}`.",
                )
            end_ns = before.until_ns if until_ns is None else until_ns
            after = replace(
                before,
                tokens_per_s=before.tokens_per_s if tokens_per_s is None else tokens_per_s,
                priority=before.priority if priority is None else priority,
                until_ns=None if no_end else end_ns,
            )
            if after == before:
                return before
            living = _living(change.connection, change.now_ns, before.deployment_id)
            others = [row for row in living if row.id != before.id]
            _refuse_second(after, others)
            _check(after, others, room, before)
            _write(change.connection, after)
            change.record("update", KIND, after.id, after.deployment_name, before, after)
            return after

        return await self._store.change(actor, run)

    async def end(self, actor: str, ref: str) -> ReservationRow:
        """Its promise ends now. One that has ended stays as it is."""

        def run(change: Change) -> ReservationRow:
            before = _find(change.connection, ref)
            over = before.until_ns is not None and before.until_ns <= change.now_ns
            return before if before.ended_at_ns is not None or over else _end(change, before)

        return await self._store.change(actor, run)


def end_reservations(
    change: Change, *, tenant_id: str | None = None, environment_id: str | None = None
) -> None:
    """End those of a tenant or an environment that is deleted."""
    for row in _living(change.connection, change.now_ns):
        if tenant_id in (row.tenant_id, None) and environment_id in (row.environment_id, None):
            _end(change, row)


def reservations_of(connection: sqlite3.Connection, now_ns: int, deployment_id: str) -> int:
    """How many promises a deployment has to keep."""
    return len(_living(connection, now_ns, deployment_id))


def _environment(
    connection: sqlite3.Connection, ref: str | None, tenant_id: str, served: DeploymentRow
) -> EnvironmentRow | None:
    if ref is None:
        return None
    found = find_environment(connection, ref, tenant=tenant_id)
    if found.region != served.region:
        raise InvalidValue(
            f"The environment {found.name!r} is in the region {found.region!r}, the deployment"
            f" {served.name!r} in {served.region!r}: its requests do not go there.",
            next_step="Name a deployment of its region.",
        )
    return found


def _refuse_second(row: ReservationRow, others: Sequence[ReservationRow]) -> None:
    """Two promises of the same to the same at once would be one: it is changed instead."""
    for other in others:
        same = (other.tenant_id, other.environment_id) == (row.tenant_id, row.environment_id)
        if same and other.promise.meets(row.promise):
            whose = row.tenant_name + (f"/{row.environment_name}" if row.environment_name else "")
            raise AlreadyExists(
                f"{whose} has a reservation of {row.deployment_name!r} for that time already"
                f" ({other.tokens_per_s:,} tokens/s).",
                next_step=f"Change it: `cic reservation update {other.id} --tokens-per-s N`.",
            )


def _check(
    row: ReservationRow,
    others: Sequence[ReservationRow],
    room: Room,
    before: ReservationRow | None = None,
) -> None:
    """Refuse what is no promise, and what the room does not cover."""
    check_count("The tokens a second", row.tokens_per_s, highest=TOKENS_PER_S_MAX)
    check_count("The priority", row.priority, lowest=0, highest=PRIORITY_MAX)
    if row.until_ns is not None and row.until_ns <= row.from_ns:
        raise InvalidValue(
            "The reservation would end before it begins, or has ended already.",
            next_step="Give a later --until.",
        )
    if before is not None and _no_more_than(row, before):
        return
    name = row.deployment_name
    if room.measured_tokens_per_s is None:
        raise CapacityUnknown(
            f"Nobody knows yet what {name!r} can make in a second: none of its replicas is ready"
            " and measured.",
            next_step=f"See `cic deployment show {name}`; reserve when it is ready.",
        )
    promises = [each.promise for each in others]
    promised = promised_most(promises, row.promise)
    if promised + row.tokens_per_s <= room.tokens_per_s:
        return
    fits_ns = earliest_ns(promises, row.promise, room.tokens_per_s)
    free = max(room.tokens_per_s - promised, 0)
    raise CapacityExceeded(
        f"{name!r} makes {room.measured_tokens_per_s:,} tokens/s as measured; less"
        f" {room.headroom_percent} % headroom {room.tokens_per_s:,} can be promised, and"
        f" {promised:,} are promised at that time: {free:,} are free, {row.tokens_per_s:,} were"
        " asked for.",
        next_step=_instead(free, fits_ns, name),
    )


def _no_more_than(row: ReservationRow, before: ReservationRow) -> bool:
    no_longer = before.until_ns is None or (
        row.until_ns is not None and row.until_ns <= before.until_ns
    )
    return no_longer and row.tokens_per_s <= before.tokens_per_s


def _instead(free: int, fits_ns: int | None, name: str) -> str:
    choices = []
    if fits_ns is not None:
        moment = datetime.fromtimestamp(fits_ns / _NS, UTC).isoformat(timespec="seconds")
        choices.append(f"begin at {moment.replace('+00:00', 'Z')}, when it fits")
    if free:
        choices.append(f"ask for {free:,}")
    choices.append(f"add replicas with `cic deployment scale {name} N`")
    text = ", or ".join(choices)
    return f"{text[0].upper()}{text[1:]}."


def _refuse_ended(row: ReservationRow, now_ns: int) -> ReservationRow:
    if row.ended_at_ns is not None or (row.until_ns is not None and row.until_ns <= now_ns):
        raise InvalidValue(
            f"The reservation {row.id} has ended.",
            next_step="Make another: `cic reservation create`.",
        )
    return row


def _end(change: Change, before: ReservationRow) -> ReservationRow:
    after = replace(before, ended_at_ns=change.now_ns)
    _write(change.connection, after)
    change.record("end", KIND, after.id, after.deployment_name, before, after)
    return after


def _living(
    connection: sqlite3.Connection, now_ns: int, deployment_id: str | None = None
) -> list[ReservationRow]:
    rows = [_row(row) for row in connection.execute(_LIVING, {"now": now_ns})]
    return [row for row in rows if deployment_id in (row.deployment_id, None)]


def _find(connection: sqlite3.Connection, ref: str) -> ReservationRow:
    rows = connection.execute(_ALL + " WHERE r.id = ?", [ref])
    return only([_row(row) for row in rows], KIND, ref)


def _write(connection: sqlite3.Connection, row: ReservationRow) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            row.id,
            row.tenant_id,
            row.environment_id,
            row.deployment_id,
            row.tokens_per_s,
            row.priority,
            row.from_ns,
            row.until_ns,
            row.created_at_ns,
            row.ended_at_ns,
        ],
    )


def _row(row: sqlite3.Row) -> ReservationRow:
    return ReservationRow(
        id=row["id"],
        tenant_id=row["tenant_id"],
        tenant_name=row["tenant_name"],
        environment_id=row["environment_id"],
        environment_name=row["environment_name"],
        deployment_id=row["deployment_id"],
        deployment_name=row["deployment_name"],
        tokens_per_s=row["tokens_per_s"],
        priority=row["priority"],
        from_ns=row["from_ns"],
        until_ns=row["until_ns"],
        created_at_ns=row["created_at_ns"],
        ended_at_ns=row["ended_at_ns"],
    )
