"""Notices that a node will be taken away.

Those of people are kept here until they are withdrawn: no agent tells them. Those of the clouds are
told again with every heartbeat, and only their coming and going is written down, in the audit.
"""

import sqlite3
from typing import Final

from appliance.domain.ids import NodeId
from appliance.registry.errors import InvalidValue
from appliance.registry.nodes import KIND, REASON_CHARS_MAX, find_node
from appliance.registry.store import Change, Store
from appliance.wire.agent import PreemptionNotice

_OF_LIVING: Final = (
    "SELECT t.* FROM node_notices t JOIN nodes n ON n.id = t.node_id AND n.deleted_at_ns IS NULL"
)


class NodeNotices:
    """`ref` is a node's id or name."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> dict[NodeId, PreemptionNotice]:
        """Those that people gave, by node."""
        return await self._store.read(
            lambda connection: {
                row["node_id"]: _notice(row) for row in connection.execute(_OF_LIVING)
            }
        )

    async def give(
        self, actor: str, ref: str, at_ns: int, detail: str = ""
    ) -> tuple[NodeId, PreemptionNotice]:
        """The node will be gone at `at_ns`; a notice before is replaced. Raises NotFound."""
        if len(detail) > REASON_CHARS_MAX or not (detail.isprintable() or detail == ""):
            raise InvalidValue(
                "The reason is not acceptable.",
                next_step=f"Give one line of at most {REASON_CHARS_MAX} characters.",
            )

        def run(change: Change) -> tuple[NodeId, PreemptionNotice]:
            node = find_node(change.connection, ref)
            if at_ns <= change.now_ns:
                raise InvalidValue(
                    "The end of the node must lie ahead.", next_step="Give a longer notice."
                )
            before = _find(change.connection, node.id)
            notice = PreemptionNotice(
                source="operator", at_ns=at_ns, seen_ns=change.now_ns, detail=detail
            )
            change.connection.execute(
                "INSERT OR REPLACE INTO node_notices VALUES (?, ?, ?, ?)",
                [node.id, notice.at_ns, notice.seen_ns, detail],
            )
            change.record("notice", KIND, node.id, node.name, before, notice)
            return node.id, notice

        return await self._store.change(actor, run)

    async def withdraw(self, actor: str, ref: str) -> None:
        """Take back what people said. Nothing happens where nobody gave notice. Raises NotFound."""

        def run(change: Change) -> None:
            node = find_node(change.connection, ref)
            before = _find(change.connection, node.id)
            if before is None:
                return
            change.connection.execute("DELETE FROM node_notices WHERE node_id = ?", [node.id])
            change.record("notice withdrawn", KIND, node.id, node.name, before, None)

        await self._store.change(actor, run)

    async def record(
        self,
        actor: str,
        node_id: NodeId,
        before: PreemptionNotice | None,
        after: PreemptionNotice | None,
    ) -> None:
        """Write down that a cloud gave notice, changed it or took it back. Raises NotFound."""

        def run(change: Change) -> None:
            node = find_node(change.connection, node_id)
            action = "notice withdrawn" if after is None else "notice"
            change.record(action, KIND, node.id, node.name, before, after)

        await self._store.change(actor, run)


def _find(connection: sqlite3.Connection, node_id: NodeId) -> PreemptionNotice | None:
    row = connection.execute(_OF_LIVING + " WHERE t.node_id = ?", [node_id]).fetchone()
    return None if row is None else _notice(row)


def _notice(row: sqlite3.Row) -> PreemptionNotice:
    return PreemptionNotice(
        source="operator", at_ns=row["at_ns"], seen_ns=row["seen_ns"], detail=row["detail"]
    )
