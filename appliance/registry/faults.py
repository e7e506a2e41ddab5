"""Faults of nodes that are open, so that each is entered into the audit once when it comes and once
when it goes, whatever restarts in between.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.domain.ids import NodeId
from appliance.registry.nodes import KIND, find_node
from appliance.registry.store import Change, Store
from appliance.wire.gpu import GpuFault

FaultKey = tuple[str, str]  # code and GPU; "" for the node itself

_OF_LIVING: Final = (
    "SELECT f.node_id, f.fault FROM node_faults f"
    " JOIN nodes n ON n.id = f.node_id AND n.deleted_at_ns IS NULL"
)


class NodeFaults:
    """What is open, by node."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> dict[NodeId, frozenset[FaultKey]]:
        def read(connection: sqlite3.Connection) -> dict[NodeId, frozenset[FaultKey]]:
            open_faults: dict[NodeId, set[FaultKey]] = {}
            for row in connection.execute(_OF_LIVING):
                fault = msgspec.json.decode(row["fault"], type=GpuFault)
                open_faults.setdefault(row["node_id"], set()).add(key_of(fault))
            return {node_id: frozenset(keys) for node_id, keys in open_faults.items()}

        return await self._store.read(read)

    async def settle(self, actor: str, node_id: NodeId, faults: Sequence[GpuFault]) -> None:
        """`faults` are all that are open now: audit the difference. Raises NotFound."""

        def run(change: Change) -> None:
            node = find_node(change.connection, node_id)
            before = _open(change.connection, node_id)
            now = {key_of(fault): fault for fault in faults}
            for key, fault in now.items():
                if key not in before:
                    change.connection.execute(
                        "INSERT INTO node_faults VALUES (?, ?, ?, ?)",
                        [node_id, *key, msgspec.json.encode(fault).decode()],
                    )
                    change.record("fault", KIND, node.id, node.name, None, fault)
            for key, fault in before.items():
                if key not in now:
                    change.connection.execute(
                        "DELETE FROM node_faults WHERE node_id = ? AND code = ? AND gpu_uuid = ?",
                        [node_id, *key],
                    )
                    change.record("fault cleared", KIND, node.id, node.name, fault, None)

        await self._store.change(actor, run)


def key_of(fault: GpuFault) -> FaultKey:
    return fault.code, fault.gpu_uuid or ""


def _open(connection: sqlite3.Connection, node_id: NodeId) -> dict[FaultKey, GpuFault]:
    rows = connection.execute("SELECT fault FROM node_faults WHERE node_id = ?", [node_id])
    faults = [msgspec.json.decode(row["fault"], type=GpuFault) for row in rows]
    return {key_of(fault): fault for fault in faults}
