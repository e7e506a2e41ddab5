"""Environments: the isolation scopes of a tenant. Names are unique in their tenant."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.domain.ids import EnvironmentId, TenantId
from appliance.domain.limits import UNLIMITED, Limits
from appliance.registry.errors import AlreadyExists, InvalidValue
from appliance.registry.limit_rows import COLUMNS, limits_of
from appliance.registry.names import check_model_name, check_name, column_of, only
from appliance.registry.regions import ensure_region
from appliance.registry.store import Change, Store
from appliance.registry.tenants import find_tenant

KIND: Final = "environment"
MODELS_MAX: Final = 1_000
_LIVING: Final = (
    f"SELECT e.*, t.name AS tenant_name, {COLUMNS} FROM environments e"  # noqa: S608 (constants)
    " JOIN tenants t ON t.id = e.tenant_id"
    " LEFT JOIN limits l ON l.layer = 'environment' AND l.scope_id = e.id"
    " WHERE e.deleted_at_ns IS NULL"
)
_ORDER: Final = " ORDER BY t.name, e.name"


@dataclass(frozen=True, slots=True)
class EnvironmentRow:
    id: EnvironmentId
    name: str
    tenant_id: TenantId
    tenant_name: str
    region: str
    models: tuple[str, ...] | None  # names of allowed deployments, sorted; None: all
    suspended: bool
    created_at_ns: int
    limits: Limits


class Environments:
    """`ref` is an id or a name; `tenant` (id or name) narrows where a name alone is ambiguous.

    An environment of another tenant than the one given is not found.
    """

    __slots__ = ("_empty", "_site_region", "_store")

    def __init__(
        self,
        store: Store,
        site_region: str,
        empty: Callable[[Change, EnvironmentRow, bool], None],
    ) -> None:
        """`empty(change, environment, cascade)` deletes its keys, or raises InUse."""
        self._store = store
        self._site_region = site_region
        self._empty = empty

    async def create(
        self,
        actor: str,
        name: str,
        *,
        tenant: str,
        region: str | None = None,
        models: Sequence[str] | None = None,
    ) -> EnvironmentRow:
        """`region` None: the site's. An unknown region is registered with multiplier 10000."""

        def run(change: Change) -> EnvironmentRow:
            owner = find_tenant(change.connection, tenant)
            _refuse_taken(change.connection, owner.id, check_name(KIND, name))
            row = EnvironmentRow(
                id=EnvironmentId(change.new_id(KIND)),
                name=name,
                tenant_id=owner.id,
                tenant_name=owner.name,
                region=ensure_region(change, region or self._site_region),
                models=_checked(models),
                suspended=False,
                created_at_ns=change.now_ns,
                limits=UNLIMITED,
            )
            change.connection.execute(
                "INSERT INTO environments VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                [
                    row.id,
                    row.tenant_id,
                    row.name,
                    row.region,
                    _models_text(row),
                    row.suspended,
                    row.created_at_ns,
                ],
            )
            change.record("create", KIND, row.id, row.name, None, row)
            return row

        return await self._store.change(actor, run)

    async def list(self, *, tenant: str | None = None) -> list[EnvironmentRow]:
        """By tenant's name, then name."""

        def query(connection: sqlite3.Connection) -> list[EnvironmentRow]:
            if tenant is not None:
                return environments_of(connection, find_tenant(connection, tenant).id)
            return [_row(row) for row in connection.execute(_LIVING + _ORDER)]

        return await self._store.read(query)

    async def get(self, ref: str, *, tenant: str | None = None) -> EnvironmentRow:
        """Raises NotFound, Ambiguous."""
        return await self._store.read(
            lambda connection: find_environment(connection, ref, tenant=tenant)
        )

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        tenant: str | None = None,
        name: str | None = None,
        region: str | None = None,
        models: Sequence[str] | None = None,
        all_models: bool = False,
    ) -> EnvironmentRow:
        """None leaves a field as it is; `all_models` takes the list of allowed models away."""

        def run(change: Change) -> EnvironmentRow:
            before = find_environment(change.connection, ref, tenant=tenant)
            if name is not None and name != before.name:
                _refuse_taken(change.connection, before.tenant_id, check_name(KIND, name))
            allowed = before.models if models is None else _checked(models)
            after = replace(
                before,
                name=name or before.name,
                region=ensure_region(change, region or before.region),
                models=None if all_models else allowed,
            )
            return _save(change, "update", before, after)

        return await self._store.change(actor, run)

    async def suspend(self, actor: str, ref: str, *, tenant: str | None = None) -> EnvironmentRow:
        return await self._set_suspended(actor, "suspend", ref, tenant, suspended=True)

    async def resume(self, actor: str, ref: str, *, tenant: str | None = None) -> EnvironmentRow:
        return await self._set_suspended(actor, "resume", ref, tenant, suspended=False)

    async def delete(
        self, actor: str, ref: str, *, tenant: str | None = None, cascade: bool = False
    ) -> None:
        """Raises InUse when it has living keys, unless `cascade` deletes them with it."""

        def run(change: Change) -> None:
            row = find_environment(change.connection, ref, tenant=tenant)
            self._empty(change, row, cascade)
            retire_environment(change, row)

        await self._store.change(actor, run)

    async def _set_suspended(
        self, actor: str, action: str, ref: str, tenant: str | None, *, suspended: bool
    ) -> EnvironmentRow:
        def run(change: Change) -> EnvironmentRow:
            before = find_environment(change.connection, ref, tenant=tenant)
            return _save(change, action, before, replace(before, suspended=suspended))

        return await self._store.change(actor, run)


def find_environment(
    connection: sqlite3.Connection, ref: str, *, tenant: str | None
) -> EnvironmentRow:
    """The living environment of that id or name. Raises NotFound, Ambiguous."""
    query, values = _LIVING + f" AND e.{column_of(ref)} = ?", [ref]
    if tenant is not None:
        query, values = query + " AND e.tenant_id = ?", [ref, find_tenant(connection, tenant).id]
    rows = [_row(row) for row in connection.execute(query, values)]
    return only(rows, KIND, ref, within="its tenant")


def environments_of(connection: sqlite3.Connection, tenant_id: TenantId) -> list[EnvironmentRow]:
    """The living environments of a tenant, by name."""
    rows = connection.execute(_LIVING + " AND e.tenant_id = ?" + _ORDER, [tenant_id])
    return [_row(row) for row in rows]


def retire_environment(change: Change, row: EnvironmentRow) -> None:
    """Delete an environment that has no living keys."""
    change.connection.execute(
        "UPDATE environments SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, row.id]
    )
    change.record("delete", KIND, row.id, row.name, row, None)


def _row(row: sqlite3.Row) -> EnvironmentRow:
    return EnvironmentRow(
        id=row["id"],
        name=row["name"],
        tenant_id=row["tenant_id"],
        tenant_name=row["tenant_name"],
        region=row["region"],
        models=None if row["models"] is None else tuple(json.loads(row["models"])),
        suspended=bool(row["suspended"]),
        created_at_ns=row["created_at_ns"],
        limits=limits_of(row),
    )


def _checked(models: Sequence[str] | None) -> tuple[str, ...] | None:
    if models is None:
        return None
    if len(models) > MODELS_MAX:
        raise InvalidValue(
            f"{len(models)} allowed models are too many.",
            next_step=f"Name at most {MODELS_MAX}, or allow all.",
        )
    return tuple(sorted({check_model_name("deployment", name) for name in models}))


def _models_text(row: EnvironmentRow) -> str | None:
    return None if row.models is None else json.dumps(row.models)


def _refuse_taken(connection: sqlite3.Connection, tenant_id: TenantId, name: str) -> None:
    taken = connection.execute(_LIVING + " AND e.tenant_id = ? AND e.name = ?", [tenant_id, name])
    if taken.fetchone():
        raise AlreadyExists(
            f"The tenant has an environment {name!r} already.", next_step="Choose another name."
        )


def _save(
    change: Change, action: str, before: EnvironmentRow, after: EnvironmentRow
) -> EnvironmentRow:
    if after != before:
        change.connection.execute(
            "UPDATE environments SET name = ?, region = ?, models = ?, suspended = ? WHERE id = ?",
            [after.name, after.region, _models_text(after), after.suspended, after.id],
        )
        change.record(action, KIND, after.id, after.name, before, after)
    return after
