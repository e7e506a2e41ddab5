"""The live stream of the admin API: tables of rows, whole at first, then only what changed.

The rows of nodes, gpus, models, environments and keys are those of their lists (Node, NodeGpu,
Model, Environment, Key); the row of sync is SyncStatus, by the id "sync".

`GET /v1/stream?topics=nodes,gpus&every_s=1` answers with server-sent events. Each event's data is a
Tick, its id `<boot>.<version>`. Who sends that id back as `Last-Event-ID` gets what has changed
since; where the appliance no longer knows, the next Tick holds whole tables again.
"""

from typing import Any, Literal

import msgspec

from appliance.wire.admin_message import Message

Topic = Literal[
    "site",
    "nodes",
    "gpus",
    "deployments",
    "replicas",
    "requests",
    "models",
    "tenants",
    "environments",
    "keys",
    "limits",
    "sync",
    "alerts",
    "events",
]

# The row of each topic, by its id. Times are ISO 8601, UTC; a figure that was not measured is null.
Row = dict[str, Any]


class Change(Message, frozen=True):
    """What became of one topic. `whole`: what is not in `rows` is not there any more.

    Otherwise `rows` has only those that changed, and of these only the fields that did (a new row
    has all of its fields); `gone` are the ids of rows that ended.
    """

    topic: Topic
    whole: bool = False
    rows: dict[str, Row] = msgspec.field(default_factory=dict)
    gone: list[str] = msgspec.field(default_factory=list)


class Tick(Message, frozen=True):
    """One event. It comes at each interval even where nothing changed: so staleness is known."""

    at: str
    changes: list[Change] = msgspec.field(default_factory=list)


class SiteRow(Message, frozen=True):
    """The site as a whole; the topic `site` has this one row, "site"."""

    name: str
    version: str
    region: str
    endpoint: str
    ready: bool
    started_at: str
    requests_running: int
    requests_queued: int
    streams_open: int
    connections_open: int
    requests_per_s: float | None
    input_tokens_per_s: float | None
    output_tokens_per_s: float | None
    failures_per_min: float | None
    first_token_p50_ms: float | None
    first_token_p95_ms: float | None
    records: int
    unsealed: int  # records after the last manifest
    product: str = ""  # what a partner calls it
    accent: str = ""  # that partner's colour, as "#5fafd7"
    support: str = ""  # whom to ask


class DeploymentRow(Message, frozen=True):
    """A deployment without its replicas, which are rows of their own."""

    id: str
    name: str
    engine: str
    model: str
    region: str
    state: str
    reason: str
    replicas_wanted: int
    replicas_ready: int
    requests_running: int
    requests_queued: int
    output_tokens_per_s: float | None
    first_token_p95_ms: float | None
    cache_used_percent: float | None  # of the engines' KV cache, the fullest
    strategy: str
    pins: tuple[str, ...]
    idle_s: int | None
    generation: int
    created_at: str


class ReplicaRow(Message, frozen=True):
    """One engine process. `load_percent`: how far its loading is; null when that is not known."""

    id: str
    deployment: str
    node: str
    state: str
    reason: str
    pid: int | None
    restarts: int
    slots: int | None
    context_tokens: int | None
    requests_running: int | None
    requests_waiting: int | None
    output_tokens_per_s: float | None  # now
    tokens_per_s: float | None  # it can, as measured at warm-up
    cache_used_percent: float | None
    load_percent: float | None
    failures: int
    since: str | None
    generation: int
    engine_version: str | None
    gpus: tuple[str, ...]


RequestPhase = Literal["queued", "waiting", "streaming"]


class RequestRow(Message, frozen=True):
    """A request in flight, without any of its content. waiting: at an engine, no token yet."""

    id: str
    tenant: str
    environment: str
    key: str  # its name
    deployment: str
    replica: str | None
    node: str | None
    operation: str
    phase: RequestPhase
    stream: bool
    started_at: str
    input_tokens: int | None
    output_tokens: int | None
    client: str  # address


class TenantRow(Message, frozen=True):
    """A tenant and what it does now. `limit_percent` is of the fullest limit in force on it."""

    id: str
    name: str
    plan: str
    state: str
    created_at: str
    environments: int
    keys: int
    requests_running: int
    requests_per_s: float | None
    output_tokens_per_s: float | None
    limit_percent: float | None
    limit: str  # which one: "tokens_per_min"; "" where nothing is limited


class LimitRow(Message, frozen=True):
    """A limit of one scope and what is used of it now. The id is `layer:scope_id:limit`."""

    layer: Literal["global", "tenant", "environment", "key"]
    scope_id: str
    name: str
    limit: str  # requests_per_min, tokens_per_min, tokens_per_day, concurrency
    value: int
    used: int


AlertSeverity = Literal["info", "warning", "error", "fatal"]


class Alert(Message, frozen=True):
    """Something that wants an administrator. It ends by itself when its cause does."""

    id: str  # stable for a cause: "node:<id>:unreachable"
    severity: AlertSeverity
    subject: str  # "node", "gpu", "deployment", "tenant", "sync", "entitlement", "ledger", "disk" …
    ref: str  # of the subject
    text: str
    next_step: str
    since: str
    acknowledged_at: str | None = None
    acknowledged_by: str | None = None


class Event(Message, frozen=True):
    """Something that happened on the site. `kind` is stable: "replica.ready", "node.lost" …"""

    seq: int
    at: str
    severity: AlertSeverity
    kind: str
    subject: str
    ref: str
    text: str


class HistoryPoint(Message, frozen=True, array_like=True):
    """The mean and the largest of a span that began at `at_s` (wall clock, seconds)."""

    at_s: int
    mean: float | None
    largest: float | None


class HistorySeries(Message, frozen=True):
    """`of` is "" for the site, else the name of a deployment, node or tenant."""

    series: str
    of: str
    unit: str
    step_s: int
    points: list[HistoryPoint]
