"""Reads a Snapshot out of the registry's file: a few queries, whatever the number of keys."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.domain.ids import EnvironmentId, ModelId, TenantId
from appliance.domain.limits import PLAN_LIMITS, UNLIMITED, Layer, LayerLimits, Limits, Plan
from appliance.registry.deployments import operations_of
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
    " k.expires_at_ns FROM key_secrets s JOIN api_keys k ON k.id = s.key_id"
    " WHERE k.deleted_at_ns IS NULL AND (s.retires_at_ns IS NULL OR s.retires_at_ns > ?)"
)
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


def load_snapshot(
    connection: sqlite3.Connection, now_ns: int, *, pepper: bytes, global_limits: Limits
) -> Snapshot:
    """The tables as they are in the connection's transaction.

    `global_limits` come from the settings; what the registry has set lies over them. Secrets
    whose overlap is over at `now_ns` are left out; expired keys stay, to be told so.
    """
    (version,) = connection.execute("SELECT version FROM state").fetchone()
    limits = {
        (row["layer"], row["scope_id"]): limits_of(row)
        for row in connection.execute("SELECT * FROM limits")
    }
    set_globally = limits.get((Layer.GLOBAL, GLOBAL_SCOPE), UNLIMITED)
    layers = _with((), Layer.GLOBAL, GLOBAL_SCOPE, set_globally.over(global_limits))
    tenants = _tenants(connection, limits, layers, pepper)
    environments = _environments(connection, limits, tenants)
    return Snapshot(
        version=version,
        credentials=_credentials(connection, limits, environments, now_ns),
        deployments=_deployments(connection),
    )


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
    limits: _SetLimits,
    environments: Mapping[str, _Environment],
    now_ns: int,
) -> dict[bytes, Credential]:
    roles = {role.value: role for role in Role}
    credentials = {}
    for row in connection.execute(_SECRETS, [now_ns]):
        digest, retires_ns, key_id, environment_id, name, role, suspended, expires_ns = row
        environment = environments[environment_id]
        tenant = environment.tenant
        own = limits.get((Layer.KEY, key_id), UNLIMITED)
        credentials[digest] = Credential(
            key_id=key_id,
            key_name=name,
            role=roles[role],
            key_suspended=bool(suspended),
            expires_at_ns=min(
                (end for end in (retires_ns, expires_ns) if end is not None), default=None
            ),
            tenant_id=tenant.id,
            tenant_name=tenant.name,
            tenant_suspended=tenant.suspended,
            plan=tenant.plan,
            environment_id=environment.id,
            environment_name=environment.name,
            environment_suspended=environment.suspended,
            region=environment.region,
            models_allowed=environment.models,
            layers=_with(environment.layers, Layer.KEY, key_id, own),
            cache_salt=tenant.cache_salt,
        )
    return credentials


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
