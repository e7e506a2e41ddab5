"""Replicas and tickets for tests of the scheduler."""

from appliance.domain.ids import DeploymentId, ReplicaId, TenantId
from appliance.domain.usage import Operation
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.tickets import Ticket

DEPLOYMENT = DeploymentId("dep_1")


def target(
    name: str,
    *,
    slots: int | None = 1,
    tokens_per_s: float | None = None,
    port: int = 1,
    deployment: DeploymentId = DEPLOYMENT,
) -> ReplicaTarget:
    return ReplicaTarget(
        replica_id=ReplicaId(name),
        deployment_id=deployment,
        node_name="node",
        host="127.0.0.1",
        port=port,
        tls=False,
        base_path="",
        api_key=None,
        upstream_model=None,
        slots=slots,
        tokens_per_s=tokens_per_s,
        context_tokens=4_096,
        operations=frozenset({Operation.CHAT}),
    )


def ticket(
    tenant: str = "ten_1", tokens: int = 100, *, deployment: DeploymentId = DEPLOYMENT
) -> Ticket:
    return Ticket(deployment, TenantId(tenant), tokens)
