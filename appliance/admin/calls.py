"""One call of the admin API as its handler sees it: who asks, for what, with which values."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec

from appliance.admin.ports import (
    BackupSource,
    BurstSource,
    JoinSource,
    LimitUsage,
    LiveState,
    ManifestSource,
    ReservationSource,
    SyncPort,
    UsageSource,
)
from appliance.admin.replays import Replays
from appliance.admin.roles import Caller, Roles
from appliance.admin.upkeep import Upkeep
from appliance.admin.watch import Watch
from appliance.branding import Brand
from appliance.domain.clock import Clock
from appliance.modelpacks.store import PackDesk
from appliance.registry.registry import Registry
from appliance.wire.access import AccessRole
from appliance.wire.admin import SEQ_MAX

if TYPE_CHECKING:
    from appliance.admin.observer import Observer
    from appliance.admin.stream import LiveStream


@dataclass(frozen=True, slots=True)
class Site:
    """What the site tells of itself. It does not change while the appliance runs."""

    name: str
    region: str
    version: str
    started_at_ns: int  # wall clock
    brand: Brand | None = None  # what a partner calls the product, if it does


@dataclass(frozen=True, slots=True)
class Services:
    """All that handlers work with."""

    site: Site
    registry: Registry
    live: LiveState
    usage: UsageSource
    limit_usage: LimitUsage
    clock: Clock
    sync: SyncPort
    manifests: ManifestSource
    packs: PackDesk
    bursts: BurstSource
    reserving: ReservationSource
    joining: JoinSource
    backups: BackupSource
    roles: Roles
    replays: Replays
    upkeep: Upkeep
    watch: Watch
    stream: "LiveStream"
    observer: "Observer"


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route without query parameters."""


class InTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Narrows a name, or a list, to a tenant (id or name)."""

    tenant: str | None = None


class InEnvironment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Narrows a name, or a list, to a tenant and an environment (ids or names)."""

    tenant: str | None = None
    environment: str | None = None


class Cascade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`cascade=true` deletes what hangs on the object with it."""

    cascade: bool = False


class CascadeInTenant(Cascade, frozen=True, forbid_unknown_fields=True):
    """The same for a name that is meant in a tenant (id or name)."""

    tenant: str | None = None


class Layers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose limits: the layers a request of that key, environment or tenant passes."""

    tenant: str | None = None
    environment: str | None = None
    key: str | None = None


class UsageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`since` and `until` are ISO 8601; `by` is a list of columns with commas."""

    since: str | None = None
    until: str | None = None
    by: str = ""


class Since(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only what has a higher number."""

    since: Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)] = 0


Q = TypeVar("Q")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """`ref` is the object's id or name from the path, "" where the path has none."""

    actor: str
    ref: str
    query: Q
    body: B
    caller: Caller | None = None  # None: a handler asks another in its own name
    last_id: str = ""  # of the event that was seen last, where an answer streams


@dataclass(frozen=True, slots=True)
class Lines:
    """An answer of many objects, sent one a line as they come."""

    objects: AsyncIterator[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Events:
    """An answer that goes on: pieces as they happen, framed as their type says."""

    pieces: AsyncIterator[bytes]
    content_type: str = "text/event-stream"


Handler = Callable[[Services, Call[Any, Any]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: registered with the server and described in OpenAPI from this same row.

    Without a `role` of its own, to read takes a viewer and to change anything takes an admin.
    """

    method: str
    path: str
    summary: str
    handler: Handler
    answer: Any  # a type; None: no content
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    status: int = 200
    lines: bool = False  # NDJSON of `answer`
    body_bytes_max: int | None = None  # None: the API's own limit
    grows: bool = False  # makes something new or larger: refused while the entitlement is frozen
    secrets: frozenset[str] = frozenset()  # fields of the answer that are shown once
    streams: bool = False  # answers Events, which are never given again
    role: AccessRole | None = None
    operator_fields: frozenset[str] = frozenset()  # who sets another field of the body is an admin

    @property
    def least_role(self) -> AccessRole:
        """What a caller is at least, whatever the body."""
        return self.role or ("viewer" if self.method == "GET" else "admin")

    def role_for(self, body: msgspec.Struct | None) -> AccessRole:
        """What it takes to send this body."""
        if self.operator_fields and body is not None:
            for field in msgspec.structs.fields(body):
                given = getattr(body, field.name)
                if field.name not in self.operator_fields and given != field.default:
                    return "admin"
        return self.least_role
