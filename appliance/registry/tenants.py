"""Tenants: who is billed. Names are unique among the living."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from appliance.domain.ids import TenantId
from appliance.domain.limits import UNLIMITED, Limits, Plan
from appliance.registry.errors import AlreadyExists
from appliance.registry.limit_rows import COLUMNS, limits_of
from appliance.registry.names import check_name, column_of, only
from appliance.registry.store import Change, Store

KIND: Final = "tenant"
_LIVING: Final = (
    f"SELECT t.*, {COLUMNS} FROM tenants t"  # noqa: S608 (constants)
    " LEFT JOIN limits l ON l.layer = 'tenant' AND l.scope_id = t.id"
    " WHERE t.deleted_at_ns IS NULL"
)


@dataclass(frozen=True, slots=True)
class TenantRow:
    id: TenantId
    name: str
    plan: Plan
    suspended: bool
    created_at_ns: int
    limits: Limits  # set on this tenant, over its plan


class Tenants:
    """`ref` is an id or a name. Writes return when they are durable and the gateway knows."""

    __slots__ = ("_empty", "_store")

    def __init__(self, store: Store, empty: Callable[[Change, TenantRow, bool], None]) -> None:
        """`empty(change, tenant, cascade)` deletes what hangs on a tenant, or raises InUse."""
        self._store = store
        self._empty = empty

    async def create(self, actor: str, name: str, plan: Plan = Plan.ENTERPRISE) -> TenantRow:
        """Raises InvalidValue, AlreadyExists."""

        def run(change: Change) -> TenantRow:
            _refuse_taken(change.connection, check_name(KIND, name))
            row = TenantRow(
                TenantId(change.new_id(KIND)), name, plan, False, change.now_ns, UNLIMITED
            )
            change.connection.execute(
                "INSERT INTO tenants VALUES (?, ?, ?, ?, ?, NULL)",
                [row.id, row.name, row.plan, row.suspended, row.created_at_ns],
            )
            change.record("create", KIND, row.id, row.name, None, row)
            return row

        return await self._store.change(actor, run)

    async def list(self) -> list[TenantRow]:
        """By name."""
        return await self._store.read(
            lambda connection: [_row(r) for r in connection.execute(_LIVING + " ORDER BY t.name")]
        )

    async def get(self, ref: str) -> TenantRow:
        """Raises NotFound."""
        return await self._store.read(lambda connection: find_tenant(connection, ref))

    async def update(
        self, actor: str, ref: str, *, name: str | None = None, plan: Plan | None = None
    ) -> TenantRow:
        """None leaves a field as it is."""

        def run(change: Change) -> TenantRow:
            before = find_tenant(change.connection, ref)
            if name is not None and name != before.name:
                _refuse_taken(change.connection, check_name(KIND, name))
            after = replace(before, name=name or before.name, plan=plan or before.plan)
            return _save(change, "update", before, after)

        return await self._store.change(actor, run)

    async def suspend(self, actor: str, ref: str) -> TenantRow:
        return await self._set_suspended(actor, "suspend", ref, suspended=True)

    async def resume(self, actor: str, ref: str) -> TenantRow:
        return await self._set_suspended(actor, "resume", ref, suspended=False)

    async def delete(self, actor: str, ref: str, *, cascade: bool = False) -> None:
        """Raises InUse when it has living environments, unless `cascade` deletes them with it."""

        def run(change: Change) -> None:
            row = find_tenant(change.connection, ref)
            self._empty(change, row, cascade)
            change.connection.execute(
                "UPDATE tenants SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, row.id]
            )
            change.record("delete", KIND, row.id, row.name, row, None)

        await self._store.change(actor, run)

    async def _set_suspended(
        self, actor: str, action: str, ref: str, *, suspended: bool
    ) -> TenantRow:
        def run(change: Change) -> TenantRow:
            before = find_tenant(change.connection, ref)
            return _save(change, action, before, replace(before, suspended=suspended))

        return await self._store.change(actor, run)


def find_tenant(connection: sqlite3.Connection, ref: str) -> TenantRow:
    """The living tenant of that id or name. Raises NotFound."""
    rows = connection.execute(_LIVING + f" AND t.{column_of(ref)} = ?", [ref])
    return only([_row(row) for row in rows], KIND, ref)


def _row(row: sqlite3.Row) -> TenantRow:
    return TenantRow(
        id=row["id"],
        name=row["name"],
        plan=Plan(row["plan"]),
        suspended=bool(row["suspended"]),
        created_at_ns=row["created_at_ns"],
        limits=limits_of(row),
    )


def _refuse_taken(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute(_LIVING + " AND t.name = ?", [name]).fetchone():
        raise AlreadyExists(
            f"There is a tenant {name!r} already.", next_step="Choose another name."
        )


def _save(change: Change, action: str, before: TenantRow, after: TenantRow) -> TenantRow:
    if after != before:
        change.connection.execute(
            "UPDATE tenants SET name = ?, plan = ?, suspended = ? WHERE id = ?",
            [after.name, after.plan, after.suspended, after.id],
        )
        change.record(action, KIND, after.id, after.name, before, after)
    return after
