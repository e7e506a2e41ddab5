"""Capacity reservations: tokens/s guaranteed to a tenant on a deployment."""

import sqlite3
from dataclasses import dataclass
from typing import Final, NewType

from appliance.domain.ids import DeploymentId, TenantId
from appliance.registry.deployments import find_deployment
from appliance.registry.errors import AlreadyExists
from appliance.registry.names import check_count, only
from appliance.registry.store import Change, Store
from appliance.registry.tenants import find_tenant

ReservationId = NewType("ReservationId", str)

KIND: Final = "reservation"
_LIVING: Final = (
    "SELECT id, tenant_id, deployment_id, tokens_per_s, created_at_ns FROM reservations"
    " WHERE deleted_at_ns IS NULL"
)


@dataclass(frozen=True, slots=True)
class ReservationRow:
    id: ReservationId
    tenant_id: TenantId
    deployment_id: DeploymentId
    tokens_per_s: int
    created_at_ns: int


class Reservations:
    """A tenant has at most one reservation on a deployment."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(
        self, actor: str, *, tenant: str, deployment: str, tokens_per_s: int
    ) -> ReservationRow:
        """Raises NotFound, InvalidValue, AlreadyExists."""

        def run(change: Change) -> ReservationRow:
            owner = find_tenant(change.connection, tenant)
            target = find_deployment(change.connection, deployment)
            if any(
                row.deployment_id == target.id
                for row in reservations_of(change.connection, owner.id)
            ):
                raise AlreadyExists(
                    f"The tenant {owner.name!r} has a reservation on {target.name!r} already.",
                    next_step="Delete it first.",
                )
            row = ReservationRow(
                ReservationId(change.new_id(KIND)),
                owner.id,
                target.id,
                check_count("A reservation of tokens/s", tokens_per_s),
                change.now_ns,
            )
            change.connection.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, NULL)",
                [row.id, row.tenant_id, row.deployment_id, row.tokens_per_s, row.created_at_ns],
            )
            change.record("create", KIND, row.id, "", None, row)
            return row

        return await self._store.change(actor, run)

    async def list(self, *, tenant: str | None = None) -> list[ReservationRow]:
        """Oldest first."""

        def query(connection: sqlite3.Connection) -> list[ReservationRow]:
            if tenant is not None:
                return reservations_of(connection, find_tenant(connection, tenant).id)
            rows = connection.execute(_LIVING + " ORDER BY created_at_ns, id")
            return [ReservationRow(*row) for row in rows]

        return await self._store.read(query)

    async def delete(self, actor: str, reservation_id: str) -> None:
        """Raises NotFound."""

        def run(change: Change) -> None:
            rows = change.connection.execute(_LIVING + " AND id = ?", [reservation_id])
            row = only([ReservationRow(*row) for row in rows], KIND, reservation_id)
            delete_reservation(change, row)

        await self._store.change(actor, run)


def reservations_of(connection: sqlite3.Connection, tenant_id: TenantId) -> list[ReservationRow]:
    """The living reservations of a tenant, oldest first."""
    rows = connection.execute(
        _LIVING + " AND tenant_id = ? ORDER BY created_at_ns, id", [tenant_id]
    )
    return [ReservationRow(*row) for row in rows]


def delete_reservation(change: Change, row: ReservationRow) -> None:
    change.connection.execute(
        "UPDATE reservations SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, row.id]
    )
    change.record("delete", KIND, row.id, "", row, None)
