"""Replicas wanted: one row for each engine process a deployment shall have, and where.

Deployments make and remove the rows as their count changes; the fleet places them on nodes. What
the processes really do is the fleet's knowledge and is never stored.
"""

from dataclasses import dataclass, replace
from typing import Final

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.registry.names import only
from appliance.registry.nodes import find_node
from appliance.registry.store import Change, Store

KIND: Final = "replica"
_LIVING: Final = (
    "SELECT id, deployment_id, ordinal, node_id FROM replicas WHERE deleted_at_ns IS NULL"
)


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    id: ReplicaId
    deployment_id: DeploymentId
    ordinal: int  # 0 … replicas - 1
    node_id: NodeId | None  # None: not placed (or external)


class Replicas:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[ReplicaRow]:
        """Of all living deployments, by deployment and ordinal."""
        return await self._store.read(
            lambda connection: [
                ReplicaRow(*row)
                for row in connection.execute(_LIVING + " ORDER BY deployment_id, ordinal")
            ]
        )

    async def place(self, actor: str, replica_id: ReplicaId, node_id: NodeId | None) -> ReplicaRow:
        """Put a replica on a node, or None: take it off. Raises NotFound for either."""

        def run(change: Change) -> ReplicaRow:
            rows = change.connection.execute(_LIVING + " AND id = ?", [replica_id])
            before = only([ReplicaRow(*row) for row in rows], KIND, replica_id)
            node = None if node_id is None else find_node(change.connection, node_id).id
            after = replace(before, node_id=node)
            if after != before:
                change.connection.execute(
                    "UPDATE replicas SET node_id = ? WHERE id = ?", [node, replica_id]
                )
                change.record("place", KIND, replica_id, "", before, after)
            return after

        return await self._store.change(actor, run)


def set_replica_count(change: Change, deployment_id: DeploymentId, count: int) -> None:
    """Bring the rows of a deployment to `count`: the highest ordinals come and go.

    The audit has it as the deployment's own change.
    """
    change.connection.execute(
        "UPDATE replicas SET deleted_at_ns = ?"
        " WHERE deployment_id = ? AND deleted_at_ns IS NULL AND ordinal >= ?",
        [change.now_ns, deployment_id, count],
    )
    (living,) = change.connection.execute(
        "SELECT count(*) FROM replicas WHERE deployment_id = ? AND deleted_at_ns IS NULL",
        [deployment_id],
    ).fetchone()
    change.connection.executemany(
        "INSERT INTO replicas VALUES (?, ?, ?, NULL, ?, NULL)",
        [
            (change.new_id(KIND), deployment_id, ordinal, change.now_ns)
            for ordinal in range(living, count)
        ],
    )
