"""The registry as the gateway sees it: immutable tables, swapped whole when the version changes.

Everything a request needs is a plain attribute here, so that the hot path asks no database.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from appliance.domain.ids import DeploymentId, EnvironmentId, KeyId, ModelId, TenantId
from appliance.domain.limits import LayerLimits
from appliance.domain.usage import Operation


class Role(StrEnum):
    """What a key may do on the LAN endpoint."""

    ADMIN = "admin"
    DEVELOPER = "developer"
    READ_ONLY = "read-only"  # lists models and usage, runs nothing


@dataclass(frozen=True, slots=True)
class Credential:
    """One API key with all that hangs on it. Deleted keys, environments and tenants are absent."""

    key_id: KeyId
    key_name: str
    role: Role
    key_suspended: bool
    expires_at_ns: int | None  # wall clock; None: never
    tenant_id: TenantId
    tenant_name: str
    tenant_suspended: bool
    plan: str
    environment_id: EnvironmentId
    environment_name: str
    environment_suspended: bool
    region: str
    models_allowed: frozenset[str] | None  # names of deployments; None: all
    layers: tuple[LayerLimits, ...]  # global, tenant, environment, key; unlimited ones left out
    cache_salt: str  # per tenant: no tenant can probe another's prefix cache


@dataclass(frozen=True, slots=True)
class DeploymentEntry:
    """A deployment as clients see it: its name is the `model` of their requests."""

    deployment_id: DeploymentId
    name: str
    model_id: ModelId
    model_digest: str  # "sha256:<hex>", or "" where the weights are not ours to read (external)
    engine: str
    operations: frozenset[Operation]
    region: str
    suspended: bool
    context_tokens: int | None
    created_s: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Version and tables. `credentials` is keyed by HMAC-SHA256(pepper, key), 32 bytes."""

    version: int
    credentials: Mapping[bytes, Credential]
    deployments: Mapping[str, DeploymentEntry]
