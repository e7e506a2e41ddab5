"""Replicas wanted: one row for each engine process a deployment shall have, and where.

Deployments make and remove the rows as their count changes; the fleet places them on nodes. What
the processes really do is the fleet's knowledge and is never stored.
"""

from dataclasses import dataclass

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    id: ReplicaId
    deployment_id: DeploymentId
    ordinal: int  # 0 … replicas - 1
    node_id: NodeId | None  # None: not placed (or external)


class Replicas:
    async def list(self) -> list[ReplicaRow]:
        """Of all living deployments, by deployment and ordinal."""
        raise NotImplementedError

    async def place(self, actor: str, replica_id: ReplicaId, node_id: NodeId | None) -> ReplicaRow:
        """Put a replica on a node, or None: take it off."""
        raise NotImplementedError
