"""What the admin API asks of the rest of a running appliance. `appliance.main` brings the answers.

The registry holds what is wanted; these Protocols tell what is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.domain.ids import DeploymentId, NodeId
from appliance.domain.limits import Layer, Limits
from appliance.wire.admin import (
    DeploymentState,
    LedgerRow,
    LedgerVerification,
    NodeState,
    Replica,
    UsageColumn,
    UsageRow,
)


@dataclass(frozen=True, slots=True)
class DeploymentLive:
    """A deployment as the fleet sees it. `reason` is for a person, "" when all is well."""

    state: DeploymentState
    reason: str
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class NodeLive:
    """A node as its agent reports it. None where it never reported."""

    state: NodeState
    agent_version: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    gpus: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    last_seen_at: str | None = None  # ISO 8601, UTC


class LiveState(Protocol):
    """The fleet and the scheduler, as of now. Called on the event loop; answers at once."""

    def deployment(self, deployment_id: DeploymentId) -> DeploymentLive | None:
        """None: the fleet has not heard of it yet."""
        ...

    def node(self, node_id: NodeId) -> NodeLive | None:
        """None: its agent never said hello."""
        ...

    def ready(self) -> bool:
        """What `/readyz` answers."""
        ...

    def endpoint(self) -> str:
        """Base URL of the LAN endpoint, `http://HOST:PORT/v1`."""
        ...

    def requests_running(self) -> int: ...

    def requests_queued(self) -> int: ...


class UsageSource(Protocol):
    """Queries of the ledger. Called in a thread: they read the disk."""

    def usage(
        self, since_ns: int | None, until_ns: int | None, by: Sequence[UsageColumn]
    ) -> Sequence[UsageRow]:
        """Sums of the records settled in [since, until), one row for each value of `by`."""
        ...

    def rows(self, since_seq: int, count_max: int) -> Sequence[LedgerRow]:
        """The first `count_max` records with seq > since_seq, in order; empty at the end."""
        ...

    def verify(self) -> LedgerVerification: ...

    def records(self) -> int: ...


class LimitUsage(Protocol):
    """What is held or used of a scope's limits in the windows that are open now."""

    def used(self, layer: Layer, scope_id: str) -> Limits:
        """None where nothing is counted."""
        ...


@dataclass(frozen=True, slots=True)
class HistogramFigures:
    """Observations not above each bound, cumulative; one more count than bounds, of all of them."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class RequestFigures:
    """Requests that ended, under one combination of labels."""

    operation: str
    model: str
    status: str  # ok, aborted, failed
    requests: int


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    replica: str
    deployment: str
    node: str
    state: str
    running: int
    outstanding_tokens: int
    tokens_per_s: float | None  # None: not measured, and then not shown
    failures: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything `/metrics` shows, taken at one moment. Counters count since the start."""

    ready: bool
    requests: Sequence[RequestFigures] = ()
    refusals: Mapping[str, int] = field(default_factory=dict)  # by error code
    tokens: Mapping[str, int] = field(default_factory=dict)  # by kind: input, output, cached
    retries: int = 0  # on another replica, before the first byte
    replays: int = 0  # answers given again for an idempotency key
    connections_open: int = 0
    connections_refused: int = 0
    requests_running: int = 0
    streams_open: int = 0
    queued: Mapping[str, int] = field(default_factory=dict)  # by deployment's name
    replicas: Sequence[ReplicaFigures] = ()
    first_token: HistogramFigures | None = None
    latency: HistogramFigures | None = None
    ledger_records: int = 0
    ledger_open: int = 0
    ledger_commits: int = 0  # groups written in one transaction
    ledger_commit_s: float = 0.0  # spent in them, waiting for the disk included
    ledger_failures: int = 0  # groups that were refused


class MetricsSource(Protocol):
    def figures(self) -> Figures:
        """Called on the event loop for each scrape; must not block."""
        ...
