"""A replica as the scheduler and the gateway know it."""

from dataclasses import dataclass

from appliance.domain.ids import DeploymentId, ReplicaId
from appliance.domain.usage import Operation


@dataclass(frozen=True, slots=True)
class ReplicaTarget:
    """A ready replica: where it answers and what it can do. A change is a new target."""

    replica_id: ReplicaId
    deployment_id: DeploymentId
    node_name: str
    host: str
    port: int
    tls: bool
    base_path: str  # "" or "/prefix": put before "/v1/…"
    api_key: str | None
    upstream_model: str | None  # the engine's own name of the model; None: as the client wrote it
    slots: int | None  # requests it works on at once; None: unknown (external)
    tokens_per_s: float | None  # measured; None: not measured yet
    context_tokens: int | None
    operations: frozenset[Operation]
    # Of an engine behind a node's door: it is verified by this name with the site's own CA, and
    # shown the appliance's certificate. None: an external engine, verified as any web site.
    server_name: str | None = None
