"""What the admin API asks of the rest of a running appliance. `appliance.main` brings the answers.

The registry holds what is wanted; these Protocols tell what is.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.admin.pace import Counted
from appliance.domain.ids import DeploymentId, NodeId
from appliance.domain.limits import Layer, Limits
from appliance.registry.reservations import Room
from appliance.scheduler.attainment import Minute
from appliance.wire.admin import LedgerRow, LedgerVerification, UsageColumn, UsageRow
from appliance.wire.agent import PreemptionNotice, QuestionKind
from appliance.wire.backups import Backup, BackupList
from appliance.wire.burst import Burst, BurstPlan, BurstPlanned, BurstUp
from appliance.wire.fleet import DeploymentState, NodeState, Replica
from appliance.wire.gpu import Driver, Gpu, NodeHealth
from appliance.wire.manifests import (
    Manifest,
    ManifestKey,
    ManifestShown,
    ManifestVerification,
    Sealing,
    SealingStatus,
    UsageProof,
)
from appliance.wire.node_tokens import NodeTokenCreate, NodeTokenCreated
from appliance.wire.placement import Explanation
from appliance.wire.stream import RequestPhase
from appliance.wire.sync import EntitlementStatus, SignedRequest, SyncReport, SyncStatus


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
    reason: str = ""  # why it is in its state, with what to do
    notice: PreemptionNotice | None = None  # it will be taken away
    gpu_figures: tuple[Gpu, ...] = ()
    driver: Driver | None = None
    health: NodeHealth | None = None
    engine_versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """An admitted request, without its content."""

    request_id: str
    tenant_id: str
    tenant: str
    environment: str
    key: str
    deployment: str
    replica_id: str | None
    node: str | None
    operation: str
    phase: RequestPhase
    stream: bool
    opened_at_ns: int
    prompt_tokens: int
    output_tokens: int
    client: str


@dataclass(frozen=True, slots=True)
class LiveReplica:
    """A replica as the scheduler sees it."""

    running: int
    ejected: bool
    tokens_per_s: float | None  # it is thought to make; None: not measured
    failures: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Everything that was and is asked of the endpoint, at one moment.

    `deployments` by name and `tenants` by id count since the start, with what is in flight.
    """

    site: Counted
    deployments: Mapping[str, Counted]
    tenants: Mapping[str, Counted]
    requests: Sequence[LiveRequest]
    queued: Mapping[str, int]  # by deployment's id
    replicas: Mapping[str, LiveReplica]  # by id
    streams_open: int
    connections_open: int
    records: int


class TrafficSource(Protocol):
    """What goes over the endpoint. Called on the event loop; answers at once."""

    @property
    def bands_s(self) -> tuple[float, ...]:
        """Upper bounds of the histograms of `Counted`."""
        ...

    def traffic(self) -> Traffic: ...


class LiveState(Protocol):
    """The fleet and the scheduler, as of now. Called on the event loop; answers at once."""

    def deployment(self, deployment_id: DeploymentId) -> DeploymentLive | None:
        """None: the fleet has not heard of it yet."""
        ...

    def node(self, node_id: NodeId) -> NodeLive | None:
        """None: its agent never said hello."""
        ...

    def explain(self, deployment_id: DeploymentId) -> Explanation | None:
        """Why its replicas run where they do; None: the fleet has not heard of it yet."""
        ...

    async def caught_up(self) -> None:
        """Returns when the fleet knows every change of the registry that was made before."""
        ...

    async def ask_node(self, node_id: NodeId, kind: QuestionKind, subject: str) -> bytes:
        """What the agent of a node answers, as JSON. Raises when it does not answer in time."""
        ...

    def ledger_healthy(self) -> bool:
        """Whether records can be written."""
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


class ManifestSource(Protocol):
    """Sealed manifests. Called on the event loop; reading happens elsewhere."""

    async def rows(self, epoch: int, seq: int, count_max: int) -> Sequence[Manifest]:
        """The first `count_max` manifests after that one, in order; empty at the end."""
        ...

    async def show(self, ref: str, tenant: str | None) -> ManifestShown: ...

    async def key(self, ref: str | None = None) -> ManifestKey:
        """That signs the next manifest, or signed `ref`."""
        ...

    async def status(self) -> SealingStatus: ...

    async def seal(self) -> Sealing:
        """Seal what is new now."""
        ...

    async def rotate_key(self) -> ManifestKey: ...

    async def prove(self, ref: str) -> UsageProof:
        """Of a record, by its id or its request's."""
        ...

    def verify(self) -> AsyncIterator[ManifestVerification]:
        """Progress, then the verdict."""
        ...


class LimitUsage(Protocol):
    """What is held or used of a scope's limits in the windows that are open now."""

    def used(self, layer: Layer, scope_id: str) -> Limits:
        """None where nothing is counted."""
        ...


class JoinSource(Protocol):
    """Where machines become nodes."""

    async def token(self, actor: str, asked: NodeTokenCreate) -> NodeTokenCreated: ...


class BackupSource(Protocol):
    """Backups of this site."""

    async def create(self, folder: str | None = None, passphrase: str | None = None) -> Backup: ...

    async def all(self) -> BackupList: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """How a promise is kept: the minutes that are over, the oldest first."""

    slipping: bool
    waiting: int  # requests
    minutes: Sequence[Minute]


class ReservationSource(Protocol):
    """Reserved capacity at work."""

    def room(self, deployment_id: DeploymentId) -> Room: ...

    def kept(self, reservation_id: str) -> Kept: ...

    async def applied(self) -> None:
        """Returns when a change that was just made is in force."""
        ...


class BurstSource(Protocol):
    """Machines lent from clouds."""

    async def plan(self, asked: BurstPlan) -> BurstPlanned: ...

    async def up(self, actor: str, asked: BurstUp) -> Burst: ...

    async def down(self, actor: str, ref: str) -> Burst: ...

    async def list(self) -> Sequence[Burst]: ...

    async def show(self, ref: str) -> Burst: ...


class SyncPort(Protocol):
    """The control plane and the entitlement, as this site has them. Called on the event loop.

    What is refused raises; what is partly refused is in the report.
    """

    async def status(self) -> SyncStatus: ...

    async def exchange(self) -> SyncReport:
        """One exchange, now."""
        ...

    async def enrol(self, url: str, code: str) -> SyncStatus: ...

    async def request(self, *, new_key: bool) -> SignedRequest:
        """The site's signed introduction, to be carried by hand."""
        ...

    async def bring(
        self, envelopes: Sequence[bytes], control_plane_key: str | None = None
    ) -> SyncReport:
        """Take signed documents that were carried here by hand."""
        ...

    async def entitlement(self) -> EntitlementStatus: ...

    async def install(
        self, envelope: bytes, control_plane_key: str | None = None
    ) -> EntitlementStatus: ...

    def check_changes(self) -> None:
        """Raises when the entitlement lets nothing new be made; called before each such route."""
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
class ReservationFigures:
    """A reservation that is in force."""

    reservation: str
    tenant: str
    environment: str  # "": all
    model: str
    tokens_per_s: int
    kept: Kept


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
    nodes: Mapping[str, NodeLive] = field(default_factory=dict)  # by name
    first_token: HistogramFigures | None = None
    latency: HistogramFigures | None = None
    ledger_records: int = 0
    ledger_open: int = 0
    ledger_commits: int = 0  # groups written in one transaction
    ledger_commit_s: float = 0.0  # spent in them, waiting for the disk included
    ledger_failures: int = 0  # groups that were refused
    loop_delay_s: float | None = None  # the longest of the last minute
    sync: SyncStatus | None = None  # as it was last read; None: not yet
    entitlement: EntitlementStatus | None = None
    reservations: Sequence[ReservationFigures] = ()


class MetricsSource(Protocol):
    def figures(self) -> Figures:
        """Called on the event loop for each scrape; must not block."""
        ...
