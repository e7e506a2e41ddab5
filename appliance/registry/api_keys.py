"""API keys: credentials of an environment. Names are unique in their environment.

A rotation gives the same key (same id, same limits, same usage) a new secret; the old secret goes
on until the end of the overlap.
"""

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from appliance.domain.ids import EnvironmentId, KeyId, TenantId
from appliance.domain.limits import UNLIMITED, Layer, Limits
from appliance.registry.environments import find_environment
from appliance.registry.errors import AlreadyExists, InvalidValue
from appliance.registry.limit_rows import COLUMNS, limits_of, write_limits
from appliance.registry.names import check_count, check_name, column_of, only
from appliance.registry.snapshot import Role
from appliance.registry.store import Change, Store
from appliance.registry.tenants import find_tenant
from appliance.security.api_keys import digest, new_key, prefix_for_people

KIND: Final = "key"
OVERLAP_S_MAX: Final = 366 * 86_400
_LIVING: Final = (
    "SELECT k.*, s.prefix, e.name AS environment_name, e.tenant_id, t.name AS tenant_name,"  # noqa: S608 (constants)
    " (SELECT max(o.retires_at_ns) FROM key_secrets o WHERE o.key_id = k.id) AS retiring_until_ns,"
    f" {COLUMNS} FROM api_keys k"
    " JOIN key_secrets s ON s.key_id = k.id AND s.retires_at_ns IS NULL"
    " JOIN environments e ON e.id = k.environment_id"
    " JOIN tenants t ON t.id = e.tenant_id"
    " LEFT JOIN limits l ON l.layer = 'key' AND l.scope_id = k.id"
    " WHERE k.deleted_at_ns IS NULL"
)
_ORDER: Final = " ORDER BY t.name, e.name, k.name"


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: KeyId
    name: str
    prefix: str  # of the newest secret, for people
    tenant_id: TenantId
    tenant_name: str
    environment_id: EnvironmentId
    environment_name: str
    role: Role
    suspended: bool
    expires_at_ns: int | None
    retiring_until_ns: int | None  # an older secret is valid until then (may lie in the past)
    created_at_ns: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its secret, which is shown once and kept nowhere."""

    row: KeyRow
    secret: str


class APIKeys:
    """`ref` is an id or a name; `tenant` and `environment` narrow where a name is ambiguous."""

    __slots__ = ("_entropy", "_pepper", "_store")

    def __init__(
        self, store: Store, pepper: bytes, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._store = store
        self._pepper = pepper
        self._entropy = entropy

    async def create(
        self,
        actor: str,
        *,
        tenant: str,
        environment: str,
        name: str | None = None,
        role: Role = Role.DEVELOPER,
        expires_at_ns: int | None = None,
        test: bool = False,
        limits: Limits = UNLIMITED,
    ) -> NewKey:
        """`name` None: `key-` and six hex digits."""

        def run(change: Change) -> NewKey:
            owner = find_environment(change.connection, environment, tenant=tenant)
            key_id = KeyId(change.new_id(KIND))
            named = check_name(KIND, f"key-{key_id[-6:]}" if name is None else name)
            _refuse_taken(change.connection, owner.id, named)
            change.connection.execute(
                "INSERT INTO api_keys VALUES (?, ?, ?, ?, 0, ?, ?, NULL)",
                [key_id, owner.id, named, role, _future(change, expires_at_ns), change.now_ns],
            )
            write_limits(change.connection, Layer.KEY, key_id, limits)
            secret = self._give_secret(change, key_id, test=test)
            row = find_key(change.connection, key_id, tenant=None, environment=None)
            change.record("create", KIND, row.id, row.name, None, row)
            return NewKey(row, secret)

        return await self._store.change(actor, run)

    async def list(
        self, *, tenant: str | None = None, environment: str | None = None
    ) -> list[KeyRow]:
        """By tenant's name, environment's name, name."""

        def query(connection: sqlite3.Connection) -> list[KeyRow]:
            narrow, values = _scope(connection, tenant, environment)
            return [_row(row) for row in connection.execute(_LIVING + narrow + _ORDER, values)]

        return await self._store.read(query)

    async def count(self) -> int:
        """How many keys live."""
        living = "SELECT count(*) FROM api_keys WHERE deleted_at_ns IS NULL"
        return await self._store.read(
            lambda connection: int(connection.execute(living).fetchone()[0])
        )

    async def get(
        self, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> KeyRow:
        """Raises NotFound, Ambiguous."""
        return await self._store.read(
            lambda connection: find_key(connection, ref, tenant=tenant, environment=environment)
        )

    async def update(
        self,
        actor: str,
        ref: str,
        *,
        tenant: str | None = None,
        environment: str | None = None,
        name: str | None = None,
        role: Role | None = None,
        expires_at_ns: int | None = None,
        never_expires: bool = False,
    ) -> KeyRow:
        """None leaves a field as it is; `never_expires` takes the expiry away."""

        def run(change: Change) -> KeyRow:
            before = find_key(change.connection, ref, tenant=tenant, environment=environment)
            if name is not None and name != before.name:
                _refuse_taken(change.connection, before.environment_id, check_name(KIND, name))
            expiry = before.expires_at_ns
            if never_expires:
                expiry = None
            elif expires_at_ns is not None:
                expiry = _future(change, expires_at_ns)
            after = replace(
                before, name=name or before.name, role=role or before.role, expires_at_ns=expiry
            )
            return _save(change, "update", before, after)

        return await self._store.change(actor, run)

    async def rotate(
        self,
        actor: str,
        ref: str,
        *,
        tenant: str | None = None,
        environment: str | None = None,
        overlap_s: int = 86_400,
    ) -> NewKey:
        """Every older secret ends after `overlap_s` at the latest; 0 ends them at once."""
        check_count("An overlap in seconds", overlap_s, lowest=0, highest=OVERLAP_S_MAX)

        def run(change: Change) -> NewKey:
            before = find_key(change.connection, ref, tenant=tenant, environment=environment)
            change.connection.execute(
                "UPDATE key_secrets SET retires_at_ns = min(coalesce(retires_at_ns, ?1), ?1)"
                " WHERE key_id = ?2",
                [change.now_ns + overlap_s * 1_000_000_000, before.id],
            )
            test = before.prefix.startswith("clsk_test_")
            secret = self._give_secret(change, before.id, test=test)
            after = find_key(change.connection, before.id, tenant=None, environment=None)
            change.record("rotate", KIND, after.id, after.name, before, after)
            return NewKey(after, secret)

        return await self._store.change(actor, run)

    async def suspend(
        self, actor: str, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> KeyRow:
        return await self._set_suspended(actor, "suspend", ref, tenant, environment, suspended=True)

    async def resume(
        self, actor: str, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> KeyRow:
        return await self._set_suspended(actor, "resume", ref, tenant, environment, suspended=False)

    async def delete(
        self, actor: str, ref: str, *, tenant: str | None = None, environment: str | None = None
    ) -> None:
        def run(change: Change) -> None:
            row = find_key(change.connection, ref, tenant=tenant, environment=environment)
            delete_key(change, row)

        await self._store.change(actor, run)

    async def _set_suspended(
        self,
        actor: str,
        action: str,
        ref: str,
        tenant: str | None,
        environment: str | None,
        *,
        suspended: bool,
    ) -> KeyRow:
        def run(change: Change) -> KeyRow:
            before = find_key(change.connection, ref, tenant=tenant, environment=environment)
            return _save(change, action, before, replace(before, suspended=suspended))

        return await self._store.change(actor, run)

    def _give_secret(self, change: Change, key_id: KeyId, *, test: bool) -> str:
        secret = new_key(test=test, entropy=self._entropy)
        change.connection.execute(
            "INSERT INTO key_secrets VALUES (?, ?, ?, ?, NULL)",
            [digest(self._pepper, secret), key_id, prefix_for_people(secret), change.now_ns],
        )
        return secret


def find_key(
    connection: sqlite3.Connection, ref: str, *, tenant: str | None, environment: str | None
) -> KeyRow:
    """The living key of that id or name. Raises NotFound, Ambiguous."""
    narrow, values = _scope(connection, tenant, environment)
    rows = connection.execute(_LIVING + narrow + f" AND k.{column_of(ref)} = ?", [*values, ref])
    return only([_row(row) for row in rows], KIND, ref, within="its tenant and environment")


def keys_of(connection: sqlite3.Connection, environment_id: EnvironmentId) -> list[KeyRow]:
    """The living keys of an environment, by name."""
    rows = connection.execute(_LIVING + " AND k.environment_id = ?" + _ORDER, [environment_id])
    return [_row(row) for row in rows]


def delete_key(change: Change, row: KeyRow) -> None:
    change.connection.execute(
        "UPDATE api_keys SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, row.id]
    )
    change.record("delete", KIND, row.id, row.name, row, None)


def _scope(
    connection: sqlite3.Connection, tenant: str | None, environment: str | None
) -> tuple[str, list[str]]:
    """The condition that narrows a query to a tenant or an environment, and its values."""
    if environment is not None:
        row = find_environment(connection, environment, tenant=tenant)
        return " AND k.environment_id = ?", [row.id]
    if tenant is not None:
        return " AND e.tenant_id = ?", [find_tenant(connection, tenant).id]
    return "", []


def _row(row: sqlite3.Row) -> KeyRow:
    return KeyRow(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"],
        tenant_id=row["tenant_id"],
        tenant_name=row["tenant_name"],
        environment_id=row["environment_id"],
        environment_name=row["environment_name"],
        role=Role(row["role"]),
        suspended=bool(row["suspended"]),
        expires_at_ns=row["expires_at_ns"],
        retiring_until_ns=row["retiring_until_ns"],
        created_at_ns=row["created_at_ns"],
        limits=limits_of(row),
    )


def _future(change: Change, expires_at_ns: int | None) -> int | None:
    if expires_at_ns is not None and expires_at_ns <= change.now_ns:
        raise InvalidValue(
            "The key would have expired already.", next_step="Give a time in the future."
        )
    return expires_at_ns


def _refuse_taken(connection: sqlite3.Connection, environment_id: EnvironmentId, name: str) -> None:
    taken = connection.execute(
        _LIVING + " AND k.environment_id = ? AND k.name = ?", [environment_id, name]
    )
    if taken.fetchone():
        raise AlreadyExists(
            f"The environment has a key {name!r} already.", next_step="Choose another name."
        )


def _save(change: Change, action: str, before: KeyRow, after: KeyRow) -> KeyRow:
    if after != before:
        change.connection.execute(
            "UPDATE api_keys SET name = ?, role = ?, suspended = ?, expires_at_ns = ? WHERE id = ?",
            [after.name, after.role, after.suspended, after.expires_at_ns, after.id],
        )
        change.record(action, KIND, after.id, after.name, before, after)
    return after
