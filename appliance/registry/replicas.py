"""Replicas wanted: one row for each engine process a deployment shall have, and where.

Deployments make and remove the rows as their count changes; the fleet places them, and replaces
them one by one when a deployment changed or a node shall be empty. What the processes really do is
the fleet's knowledge and is never stored.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from appliance.domain.ids import DeploymentId, NodeId, ReplicaId
from appliance.registry.names import only
from appliance.registry.nodes import find_node
from appliance.registry.store import Change, Store

KIND: Final = "replica"
_LIVING: Final = (
    "SELECT id, deployment_id, ordinal, node_id, generation, gpu_uuids, followers, created_at_ns"
    " FROM replicas WHERE deleted_at_ns IS NULL"
)


@dataclass(frozen=True, slots=True)
class Seat:
    """A node and the GPUs or MIG slices that a replica has there."""

    node_id: NodeId
    gpu_uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    id: ReplicaId
    deployment_id: DeploymentId
    ordinal: int  # 0 … replicas - 1; a replica and its successor share one
    node_id: NodeId | None  # None: not placed (or external)
    generation: int = 1  # of the deployment it was made from, for life
    gpu_uuids: tuple[str, ...] = ()
    followers: tuple[Seat, ...] = ()  # ranks 1 … of a replica that spans nodes
    created_at_ns: int = 0

    @property
    def seats(self) -> tuple[Seat, ...]:
        """Everywhere it has a process, in the order of ranks; () when it is not placed."""
        if self.node_id is None:
            return ()
        return (Seat(self.node_id, self.gpu_uuids), *self.followers)


class Replicas:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[ReplicaRow]:
        """Of all living deployments, by deployment, ordinal and age."""
        return await self._store.read(
            lambda connection: [
                _row(row)
                for row in connection.execute(
                    _LIVING + " ORDER BY deployment_id, ordinal, created_at_ns, rowid"
                )
            ]
        )

    async def place(self, actor: str, replica_id: ReplicaId, seats: Sequence[Seat]) -> ReplicaRow:
        """Put a replica on these nodes and GPUs, or nowhere. Raises NotFound for either."""

        def run(change: Change) -> ReplicaRow:
            before = _find(change.connection, replica_id)
            for seat in seats:
                find_node(change.connection, seat.node_id)
            after = replace(
                before,
                node_id=seats[0].node_id if seats else None,
                gpu_uuids=seats[0].gpu_uuids if seats else (),
                followers=tuple(seats[1:]),
            )
            if after != before:
                change.connection.execute(
                    "UPDATE replicas SET node_id = ?, gpu_uuids = ?, followers = ? WHERE id = ?",
                    [after.node_id, _json(after.gpu_uuids), _json(after.followers), replica_id],
                )
                change.record("place", KIND, replica_id, "", before, after)
            return after

        return await self._store.change(actor, run)

    async def succeed(self, actor: str, deployment_id: DeploymentId, ordinal: int) -> None:
        """Give that ordinal one more replica, of the deployment's generation of now.

        Nothing is made when the deployment is gone, or wants fewer by now.
        """

        def run(change: Change) -> None:
            row = change.connection.execute(
                "SELECT generation, replicas FROM deployments"
                " WHERE id = ? AND deleted_at_ns IS NULL",
                [deployment_id],
            ).fetchone()
            if row is not None and ordinal < row["replicas"]:
                (made,) = _insert(change, deployment_id, row["generation"], [ordinal])
                change.record("create", KIND, made.id, "", None, made)

        await self._store.change(actor, run)

    async def remove(self, actor: str, replica_id: ReplicaId) -> None:
        """Its successor serves, or it is one too many. Raises NotFound."""

        def run(change: Change) -> None:
            before = _find(change.connection, replica_id)
            change.connection.execute(
                "UPDATE replicas SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, replica_id]
            )
            change.record("delete", KIND, replica_id, "", before, None)

        await self._store.change(actor, run)


def set_replica_count(
    change: Change, deployment_id: DeploymentId, generation: int, count: int
) -> None:
    """Bring the rows of a deployment to `count` ordinals: the highest come and go.

    Replicas of older generations keep their ordinals; the fleet replaces them. The audit has all
    this as the deployment's own change.
    """
    change.connection.execute(
        "UPDATE replicas SET deleted_at_ns = ?"
        " WHERE deployment_id = ? AND deleted_at_ns IS NULL AND ordinal >= ?",
        [change.now_ns, deployment_id, count],
    )
    living = {
        row["ordinal"]
        for row in change.connection.execute(
            "SELECT ordinal FROM replicas WHERE deployment_id = ? AND deleted_at_ns IS NULL",
            [deployment_id],
        )
    }
    _insert(change, deployment_id, generation, (n for n in range(count) if n not in living))


def renew_replicas(change: Change, deployment_id: DeploymentId, generation: int) -> None:
    """Make the rows as they are belong to a new generation: nothing is to be replaced."""
    change.connection.execute(
        "UPDATE replicas SET generation = ? WHERE deployment_id = ? AND deleted_at_ns IS NULL",
        [generation, deployment_id],
    )


def _insert(
    change: Change, deployment_id: DeploymentId, generation: int, ordinals: Iterable[int]
) -> list[ReplicaRow]:
    made = [
        ReplicaRow(
            ReplicaId(change.new_id(KIND)),
            deployment_id,
            ordinal,
            None,
            generation,
            created_at_ns=change.now_ns,
        )
        for ordinal in ordinals
    ]
    change.connection.executemany(
        "INSERT INTO replicas (id, deployment_id, ordinal, generation, created_at_ns)"
        " VALUES (?, ?, ?, ?, ?)",
        [(row.id, deployment_id, row.ordinal, generation, change.now_ns) for row in made],
    )
    return made


def _find(connection: sqlite3.Connection, replica_id: ReplicaId) -> ReplicaRow:
    rows = connection.execute(_LIVING + " AND id = ?", [replica_id])
    return only([_row(row) for row in rows], KIND, replica_id)


def _row(row: sqlite3.Row) -> ReplicaRow:
    return ReplicaRow(
        id=row["id"],
        deployment_id=row["deployment_id"],
        ordinal=row["ordinal"],
        node_id=row["node_id"],
        generation=row["generation"],
        gpu_uuids=msgspec.json.decode(row["gpu_uuids"], type=tuple[str, ...]),
        followers=msgspec.json.decode(row["followers"], type=tuple[Seat, ...]),
        created_at_ns=row["created_at_ns"],
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
