"""Nodes: machines whose agents run engines. Whether one is alive is the fleet's knowledge."""

import sqlite3
from dataclasses import dataclass, replace
from typing import Final

from appliance.domain.ids import NodeId
from appliance.registry.errors import AlreadyExists
from appliance.registry.names import check_name, column_of, only
from appliance.registry.regions import ensure_region
from appliance.registry.store import Change, Store

KIND: Final = "node"
_LIVING: Final = "SELECT * FROM nodes WHERE deleted_at_ns IS NULL"


@dataclass(frozen=True, slots=True)
class NodeRow:
    id: NodeId
    name: str
    region: str
    suspended: bool  # takes no replicas
    created_at_ns: int


class Nodes:
    """`ref` is an id or a name."""

    __slots__ = ("_site_region", "_store")

    def __init__(self, store: Store, site_region: str) -> None:
        self._store = store
        self._site_region = site_region

    async def create(self, actor: str, name: str, *, region: str | None = None) -> NodeRow:
        """`region` None: the site's. Raises InvalidValue, AlreadyExists."""

        def run(change: Change) -> NodeRow:
            _refuse_taken(change.connection, name)
            return _insert(change, name, region or self._site_region)

        return await self._store.change(actor, run)

    async def ensure(self, actor: str, name: str) -> NodeRow:
        """The node of that name, registered in the site's region if it is not known yet."""

        def run(change: Change) -> NodeRow:
            known = change.connection.execute(_LIVING + " AND name = ?", [name]).fetchone()
            return _row(known) if known else _insert(change, name, self._site_region)

        return await self._store.change(actor, run)

    async def list(self) -> list[NodeRow]:
        """By name."""
        return await self._store.read(
            lambda connection: [_row(r) for r in connection.execute(_LIVING + " ORDER BY name")]
        )

    async def get(self, ref: str) -> NodeRow:
        """Raises NotFound."""
        return await self._store.read(lambda connection: find_node(connection, ref))

    async def update(
        self, actor: str, ref: str, *, name: str | None = None, region: str | None = None
    ) -> NodeRow:
        """None leaves a field as it is."""

        def run(change: Change) -> NodeRow:
            before = find_node(change.connection, ref)
            if name is not None and name != before.name:
                _refuse_taken(change.connection, check_name(KIND, name))
            after = replace(
                before,
                name=name or before.name,
                region=ensure_region(change, region or before.region),
            )
            return _save(change, "update", before, after)

        return await self._store.change(actor, run)

    async def suspend(self, actor: str, ref: str) -> NodeRow:
        return await self._set_suspended(actor, "suspend", ref, suspended=True)

    async def resume(self, actor: str, ref: str) -> NodeRow:
        return await self._set_suspended(actor, "resume", ref, suspended=False)

    async def delete(self, actor: str, ref: str) -> None:
        """Its replicas are placed on no node."""

        def run(change: Change) -> None:
            row = find_node(change.connection, ref)
            change.connection.execute(
                "UPDATE replicas SET node_id = NULL WHERE node_id = ?", [row.id]
            )
            change.connection.execute(
                "UPDATE nodes SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, row.id]
            )
            change.record("delete", KIND, row.id, row.name, row, None)

        await self._store.change(actor, run)

    async def _set_suspended(
        self, actor: str, action: str, ref: str, *, suspended: bool
    ) -> NodeRow:
        def run(change: Change) -> NodeRow:
            before = find_node(change.connection, ref)
            return _save(change, action, before, replace(before, suspended=suspended))

        return await self._store.change(actor, run)


def find_node(connection: sqlite3.Connection, ref: str) -> NodeRow:
    """The living node of that id or name. Raises NotFound."""
    rows = connection.execute(_LIVING + f" AND {column_of(ref)} = ?", [ref])
    return only([_row(row) for row in rows], KIND, ref)


def _row(row: sqlite3.Row) -> NodeRow:
    return NodeRow(
        row["id"], row["name"], row["region"], bool(row["suspended"]), row["created_at_ns"]
    )


def _refuse_taken(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute(_LIVING + " AND name = ?", [name]).fetchone():
        raise AlreadyExists(f"There is a node {name!r} already.", next_step="Choose another name.")


def _insert(change: Change, name: str, region: str) -> NodeRow:
    row = NodeRow(
        NodeId(change.new_id(KIND)),
        check_name(KIND, name),
        ensure_region(change, region),
        False,
        change.now_ns,
    )
    change.connection.execute(
        "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, NULL)",
        [row.id, row.name, row.region, row.suspended, row.created_at_ns],
    )
    change.record("create", KIND, row.id, row.name, None, row)
    return row


def _save(change: Change, action: str, before: NodeRow, after: NodeRow) -> NodeRow:
    if after != before:
        change.connection.execute(
            "UPDATE nodes SET name = ?, region = ?, suspended = ? WHERE id = ?",
            [after.name, after.region, after.suspended, after.id],
        )
        change.record(action, KIND, after.id, after.name, before, after)
    return after
