"""Reads a Snapshot out of the registry's file: a few queries, whatever the number of keys.

A change of one key among ten thousand must not read them all again: the audit names what changed
since the tables were read last, and what it cannot have touched is taken over.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.domain.ids import EnvironmentId, ModelId, TenantId
from appliance.domain.limits import PLAN_LIMITS, UNLIMITED, Layer, LayerLimits, Limits, Plan
from appliance.registry.ceiling import Ceiling
from appliance.registry.deployment_rows import operations_of
from appliance.registry.limit_rows import GLOBAL_SCOPE, limits_of
from appliance.registry.snapshot import Credential, DeploymentEntry, Role, Snapshot
from appliance.security.seal import derive

_TENANTS: Final = "SELECT id, name, plan, suspended FROM tenants WHERE deleted_at_ns IS NULL"
_ENVIRONMENTS: Final = (
    "SELECT id, tenant_id, name, region, models, suspended FROM environments"
    " WHERE deleted_at_ns IS NULL"
)
_SECRETS: Final = (
    "SELECT s.digest, s.retires_at_ns, k.id, k.environment_id, k.name, k.role, k.suspended,"
    " k.expires_at_ns, l.* FROM key_secrets s JOIN api_keys k ON k.id = s.key_id"
    " LEFT JOIN limits l ON l.layer = 'key' AND l.scope_id = k.id"
    " WHERE k.deleted_at_ns IS NULL AND (s.retires_at_ns IS NULL OR s.retires_at_ns > ?)"
)
_OF_KEYS: Final = " AND k.id IN (SELECT value FROM json_each(?))"
_CHANGED: Final = "SELECT object_kind, object_id FROM audit WHERE seq > ? LIMIT ?"

# Changes of these kinds touch the credentials of no key …
_TOUCH_NO_KEY: Final = frozenset(
    {"region", "model", "deployment", "node", "replica", "setting", "reservation"}
)
# … changes of these kinds touch those of one, and all others may touch any.
_TOUCH_ONE_KEY: Final = frozenset({"key", "key limits"})
# More changes at once than this are cheaper to read as a whole.
CHANGES_FOLLOWED_MAX: Final = 256
_DEPLOYMENTS: Final = (
    "SELECT d.*, m.digest AS model_digest, m.suspended AS model_suspended"
    " FROM deployments d LEFT JOIN models m ON m.id = d.model_id WHERE d.deleted_at_ns IS NULL"
)

# What is set for a scope, by layer and id.
_SetLimits = Mapping[tuple[str, str], Limits]
_Layers = tuple[LayerLimits, ...]


@dataclass(frozen=True, slots=True)
class _Tenant:
    id: TenantId
    name: str
    plan: str
    suspended: bool
    layers: _Layers  # down to the tenant's own
    cache_salt: str


@dataclass(frozen=True, slots=True)
class _Environment:
    id: EnvironmentId
    tenant: _Tenant
    name: str
    region: str
    models: frozenset[str] | None
    suspended: bool
    layers: _Layers  # down to the environment's own


@dataclass(frozen=True, slots=True)
class _Tables:
    """What was read last, and which audit entry was the newest then."""

    audit_seq: int
    environments: Mapping[str, _Environment]
    snapshot: Snapshot


class SnapshotSource:
    """Makes snapshots, each from the one before where it can. One thread at a time."""

    __slots__ = ("_ceiling", "_global_limits", "_pepper", "_tables")

    def __init__(self, *, pepper: bytes, global_limits: Limits, ceiling: Ceiling) -> None:
        """`global_limits` come from the settings; what the registry has set lies over them, and
        `ceiling` bounds both.
        """
        self._ceiling = ceiling
        self._pepper = pepper
        self._global_limits = global_limits
        self._tables: _Tables | None = None

    def forget(self) -> None:
        """Read everything anew the next time, though the registry has not changed."""
        self._tables = None

    def load(self, connection: sqlite3.Connection, now_ns: int) -> Snapshot:
        """The tables as they are in the connection's transaction.

        Secrets whose overlap is over at `now_ns` are left out when they are read; expired keys
        stay, to be told so.
        """
        version, audit_seq = connection.execute("SELECT version, audit_seq FROM state").fetchone()
        known = self._tables
        if known is not None and known.snapshot.version == version:
            return known.snapshot
        touched = None if known is None else _touched_keys(connection, known.audit_seq)
        if known is None or touched is None:
            environments: Mapping[str, _Environment] = self._read_environments(connection)
            credentials: Mapping[bytes, Credential] = _credentials(connection, environments, now_ns)
        else:
            environments = known.environments
            credentials = _with_keys(connection, known, touched, now_ns)
        snapshot = Snapshot(version, credentials, _deployments(connection))
        self._tables = _Tables(audit_seq, environments, snapshot)
        return snapshot

    def _read_environments(self, connection: sqlite3.Connection) -> dict[str, _Environment]:
        limits = {
            (row["layer"], row["scope_id"]): limits_of(row)
            for row in connection.execute("SELECT * FROM limits WHERE layer <> 'key'")
        }
        set_globally = limits.get((Layer.GLOBAL, GLOBAL_SCOPE), UNLIMITED)
        whole = self._ceiling.over(set_globally.over(self._global_limits))
        layers = _with((), Layer.GLOBAL, GLOBAL_SCOPE, whole)
        tenants = _tenants(connection, limits, layers, self._pepper)
        return _environments(connection, limits, tenants)


def _touched_keys(connection: sqlite3.Connection, since_seq: int) -> set[str] | None:
    """Ids of the keys whose credentials may have changed; None: perhaps all."""
    changes = connection.execute(_CHANGED, [since_seq, CHANGES_FOLLOWED_MAX + 1]).fetchall()
    kinds = {kind for kind, _ in changes}
    if len(changes) > CHANGES_FOLLOWED_MAX or kinds - _TOUCH_NO_KEY - _TOUCH_ONE_KEY:
        return None
    return {object_id for kind, object_id in changes if kind in _TOUCH_ONE_KEY}


def _with_keys(
    connection: sqlite3.Connection, known: _Tables, touched: set[str], now_ns: int
) -> Mapping[bytes, Credential]:
    """The credentials known, with those of the keys `touched` read anew."""
    if not touched:
        return known.snapshot.credentials
    others = known.snapshot.credentials.items()
    credentials = {digest: c for digest, c in others if c.key_id not in touched}
    return credentials | _credentials(connection, known.environments, now_ns, touched)


def _tenants(
    connection: sqlite3.Connection, limits: _SetLimits, layers: _Layers, pepper: bytes
) -> dict[str, _Tenant]:
    tenants = {}
    for tenant_id, name, plan, suspended in connection.execute(_TENANTS):
        own = limits.get((Layer.TENANT, tenant_id), UNLIMITED).over(PLAN_LIMITS[Plan(plan)])
        tenants[tenant_id] = _Tenant(
            id=tenant_id,
            name=name,
            plan=plan,
            suspended=bool(suspended),
            layers=_with(layers, Layer.TENANT, tenant_id, own),
            cache_salt=derive(pepper, "cache salt", tenant_id),
        )
    return tenants


def _environments(
    connection: sqlite3.Connection, limits: _SetLimits, tenants: Mapping[str, _Tenant]
) -> dict[str, _Environment]:
    environments = {}
    for row in connection.execute(_ENVIRONMENTS):
        environment_id, tenant_id, name, region, models, suspended = row
        tenant = tenants[tenant_id]
        own = limits.get((Layer.ENVIRONMENT, environment_id), UNLIMITED)
        environments[environment_id] = _Environment(
            id=environment_id,
            tenant=tenant,
            name=name,
            region=region,
            models=None if models is None else frozenset(json.loads(models)),
            suspended=bool(suspended),
            layers=_with(tenant.layers, Layer.ENVIRONMENT, environment_id, own),
        )
    return environments


def _credentials(
    connection: sqlite3.Connection,
    environments: Mapping[str, _Environment],
    now_ns: int,
    keys: set[str] | None = None,
) -> dict[bytes, Credential]:
    """Credentials by digest, of the keys with these ids, or of all."""
    if keys is None:
        rows = connection.execute(_SECRETS, [now_ns])
    else:
        rows = connection.execute(_SECRETS + _OF_KEYS, [now_ns, json.dumps(sorted(keys))])
    roles = {role.value: role for role in Role}
    credentials = {}
    for row in rows:
        digest, retires_ns, key_id, environment_id, name, role, suspended, expires_ns = row[:8]
        environment = environments[environment_id]
        tenant = environment.tenant
        layers = environment.layers
        if row["layer"] is not None:
            layers = _with(layers, Layer.KEY, key_id, limits_of(row))
        credentials[digest] = Credential(
            key_id=key_id,
            key_name=name,
            role=roles[role],
            key_suspended=bool(suspended),
            expires_at_ns=_earlier(retires_ns, expires_ns),
            tenant_id=tenant.id,
            tenant_name=tenant.name,
            tenant_suspended=tenant.suspended,
            plan=tenant.plan,
            environment_id=environment.id,
            environment_name=environment.name,
            environment_suspended=environment.suspended,
            region=environment.region,
            models_allowed=environment.models,
            layers=layers,
            cache_salt=tenant.cache_salt,
        )
    return credentials


def _earlier(one_ns: int | None, other_ns: int | None) -> int | None:
    if one_ns is None or other_ns is None:
        return other_ns if one_ns is None else one_ns
    return min(one_ns, other_ns)


def _deployments(connection: sqlite3.Connection) -> dict[str, DeploymentEntry]:
    return {
        row["name"]: DeploymentEntry(
            deployment_id=row["id"],
            name=row["name"],
            model_id=ModelId(row["model_id"] or ""),
            model_digest=row["model_digest"] or "",
            engine=row["engine"],
            operations=operations_of(row["operations"]),
            region=row["region"],
            suspended=bool(row["suspended"] or row["model_suspended"]),
            context_tokens=row["context_tokens"],
            created_s=row["created_at_ns"] // 1_000_000_000,
        )
        for row in connection.execute(_DEPLOYMENTS)
    }


def _with(layers: _Layers, layer: Layer, scope_id: str, own: Limits) -> _Layers:
    """`layers` and one more, unless that one limits nothing."""
    return layers if own.unlimited else (*layers, LayerLimits(layer, scope_id, own))
