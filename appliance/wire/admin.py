"""The admin API's messages, version 1: JSON over HTTP on a unix socket.

Objects are named by id or by name. Names of environments are unique in their tenant, names of keys
in their environment; where a name alone is ambiguous the tenant and environment go with it as query
parameters `tenant` and `environment`. `?cascade=true` deletes a tenant or an environment with what
hangs on it. Every error answers `ErrorBody`.

GET    /v1/status                         SiteStatus
GET    /v1/tenants                        list[Tenant]           POST  TenantCreate -> Tenant
GET    /v1/tenants/{ref}                  Tenant                 PATCH TenantUpdate · DELETE
POST   /v1/tenants/{ref}/suspend|resume   Tenant
       /v1/environments[/{ref}]           Environment            (the same verbs)
       /v1/keys[/{ref}]                   Key                    POST  KeyCreate -> KeyCreated
POST   /v1/keys/{ref}/rotate              KeyRotate -> KeyCreated
       /v1/models[/{ref}]                 Model                  (the same verbs)
       /v1/deployments[/{ref}]            Deployment             (the same verbs)
       /v1/nodes[/{ref}]                  Node                   (the same verbs)
       /v1/regions[/{ref}]                Region                 (list, create, update, delete)
GET    /v1/limits?tenant=&environment=&key=  list[LayerReport]     PUT   LimitsSet -> the same
GET    /v1/usage?since=&until=&by=        list[UsageRow]
GET    /v1/ledger?since=SEQ               NDJSON of LedgerRow    /v1/ledger/verify
GET    /v1/audit?since=SEQ                NDJSON of AuditEntry   /v1/audit/verify
GET    /openapi.json · /metrics · /healthz · /readyz
"""

from typing import Any, Final, Literal

import msgspec

from appliance.wire.admin_message import Message, State
from appliance.wire.fleet import Deployment, Node
from appliance.wire.manifests import SealingStatus
from appliance.wire.sync import EntitlementStatus, SyncStatus

PlanName = Literal["free", "developer", "business", "enterprise"]
RoleName = Literal["admin", "developer", "read-only"]
KeyState = Literal["active", "suspended", "expired", "retiring"]
UsageColumn = Literal["tenant", "environment", "key", "model", "hour"]

SEQ_MAX: Final = 2**63 - 1  # the largest number of a record that SQLite holds


class ErrorBody(Message, frozen=True):
    """`code` is stable; `message` and `next_step` are for people."""

    code: str
    message: str
    next_step: str = ""


class LimitValues(Message, frozen=True):
    """Limits of one layer; null: not limited here (or: as the plan says)."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None


class Tenant(Message, frozen=True):
    id: str
    name: str
    plan: PlanName
    state: State
    created_at: str
    limits: LimitValues  # set on this tenant, over its plan


class TenantCreate(Message, frozen=True):
    name: str
    plan: PlanName = "enterprise"


class TenantUpdate(Message, frozen=True):
    name: str | None = None
    plan: PlanName | None = None


class Environment(Message, frozen=True):
    id: str
    name: str
    tenant: str  # name
    tenant_id: str
    region: str
    models: list[str] | None  # allowed deployments; null: all
    state: State
    created_at: str
    limits: LimitValues


class EnvironmentCreate(Message, frozen=True):
    name: str
    tenant: str
    region: str | None = None  # default: the site's region
    models: list[str] | None = None  # default: all


class EnvironmentUpdate(Message, frozen=True):
    name: str | None = None
    region: str | None = None
    models: list[str] | None = None
    all_models: bool = False  # back to null


class Key(Message, frozen=True):
    id: str
    name: str
    prefix: str  # "clsk_live_Ab12…": for people, not enough to use
    tenant: str
    tenant_id: str
    environment: str
    environment_id: str
    role: RoleName
    state: KeyState
    expires_at: str | None
    old_secret_until: str | None  # after a rotation: the secret before is taken until then
    created_at: str
    limits: LimitValues


class KeyCreate(Message, frozen=True):
    tenant: str
    environment: str
    name: str | None = None
    role: RoleName = "developer"
    expires_at: str | None = None
    test: bool = False  # clsk_test_…
    limits: LimitValues = LimitValues()


class KeyUpdate(Message, frozen=True):
    name: str | None = None
    role: RoleName | None = None
    expires_at: str | None = None
    never_expires: bool = False  # takes the expiry away


class KeyRotate(Message, frozen=True):
    overlap_s: int = 86_400  # the old secret goes on for so long


class KeyCreated(Key, frozen=True):
    key: str  # the secret, shown this once; "" when this answer is given again
    secret_shown: bool | msgspec.UnsetType = msgspec.UNSET  # true: given again, kept nowhere


class LimitsSet(Message, frozen=True):
    """Sets the limits of one layer. A field that is absent stays; null takes the limit away."""

    layer: Literal["global", "tenant", "environment", "key"]
    tenant: str | None = None
    environment: str | None = None
    key: str | None = None
    requests_per_min: int | msgspec.UnsetType | None = msgspec.UNSET
    tokens_per_min: int | msgspec.UnsetType | None = msgspec.UNSET
    tokens_per_day: int | msgspec.UnsetType | None = msgspec.UNSET
    concurrency: int | msgspec.UnsetType | None = msgspec.UNSET


class LayerReport(Message, frozen=True):
    """One layer's limits in force, where they come from, and what is used of them now."""

    layer: Literal["global", "tenant", "environment", "key"]
    name: str
    source: str  # "settings", "plan free", "set", "plan free + set", "entitlement", "none"
    limits: LimitValues
    used: LimitValues  # null where nothing is limited


class UsageRow(Message, frozen=True, omit_defaults=True):
    """Sums over the columns asked for; the others are absent.

    A name comes with its id: two environments may both have a key of that name.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    tenant: str | None = None
    environment: str | None = None
    key: str | None = None
    model: str | None = None
    hour: str | None = None
    tenant_id: str | None = None
    environment_id: str | None = None
    key_id: str | None = None


class LedgerRow(Message, frozen=True):
    seq: int
    record_id: str
    request_id: str
    status: str
    tenant: str
    environment: str
    key: str
    model: str
    region: str
    operation: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    measured: str
    http_status: int
    error_code: str
    opened_at: str
    settled_at: str
    latency_ms: int
    first_token_ms: int | None
    price_class: str = "serverless"  # reserved: within a capacity reservation


class LedgerVerification(Message, frozen=True):
    ok: bool
    records: int
    open: int  # requests at work right now
    head_sha256: str
    problems: list[str]


class AuditEntry(Message, frozen=True):
    """`before` and `after` are the object as JSON, null when it was not or is no more."""

    seq: int
    at: str
    actor: str
    action: str
    object_kind: str
    object_id: str
    object_name: str
    before: Any
    after: Any
    sha256: str


class AuditVerification(Message, frozen=True):
    ok: bool
    entries: int
    head_sha256: str
    problems: list[str]


class SiteStatus(Message, frozen=True):
    name: str
    version: str
    region: str
    endpoint: str
    ready: bool
    started_at: str
    uptime_s: int
    tenants: int
    keys: int
    requests_running: int
    requests_queued: int
    records: int
    sealing: SealingStatus
    sync: SyncStatus
    entitlement: EntitlementStatus
    deployments: list[Deployment]
    nodes: list[Node]
    product: str = ""  # what a partner calls it
    support: str = ""  # whom to ask
