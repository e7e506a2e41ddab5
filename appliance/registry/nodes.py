"""Nodes: machines whose agents run engines. Whether one is alive is the fleet's knowledge."""

import sqlite3
from dataclasses import dataclass, replace
from typing import Final, Literal

from appliance.domain.ids import NodeId
from appliance.registry.errors import AlreadyExists, InvalidValue
from appliance.registry.names import check_name, column_of, only
from appliance.registry.regions import ensure_region
from appliance.registry.store import Change, Store

KIND: Final = "node"
REASON_CHARS_MAX: Final = 200
_LIVING: Final = "SELECT * FROM nodes WHERE deleted_at_ns IS NULL"

# What an administrator wants of a node. draining: takes no new replicas, those it has move to
# others first · maintenance: nothing runs on it, whether there is another place or not.
Wish = Literal["serving", "draining", "maintenance"]
_ACTIONS: Final[dict[Wish, str]] = {
    "serving": "resume",
    "draining": "drain",
    "maintenance": "maintenance",
}


@dataclass(frozen=True, slots=True)
class NodeRow:
    id: NodeId
    name: str
    region: str
    wish: Wish
    created_at_ns: int
    wish_reason: str = ""
    wish_actor: str = ""  # "": nobody ever wished anything
    wished_at_ns: int | None = None


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
            return ensure_node(change, name, self._site_region)

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

    async def wish(self, actor: str, ref: str, wish: Wish, *, reason: str = "") -> NodeRow:
        """What is wanted of the node from now on, also after restarts and upgrades."""
        if len(reason) > REASON_CHARS_MAX or not (reason.isprintable() or reason == ""):
            raise InvalidValue(
                "The reason is not acceptable.",
                next_step=f"Give one line of at most {REASON_CHARS_MAX} characters.",
            )

        def run(change: Change) -> NodeRow:
            before = find_node(change.connection, ref)
            if (before.wish, before.wish_reason) == (wish, reason):
                return before
            after = replace(
                before,
                wish=wish,
                wish_reason=reason,
                wish_actor=change.actor,
                wished_at_ns=change.now_ns,
            )
            return _save(change, _ACTIONS[wish], before, after)

        return await self._store.change(actor, run)

    async def delete(self, actor: str, ref: str) -> None:
        """Its replicas are placed on no node."""

        def run(change: Change) -> None:
            row = find_node(change.connection, ref)
            change.connection.execute(
                "UPDATE replicas SET node_id = NULL, gpu_uuids = '[]', followers = '[]'"
                " WHERE node_id = ?",
                [row.id],
            )
            change.connection.execute(
                "UPDATE nodes SET deleted_at_ns = ? WHERE id = ?", [change.now_ns, row.id]
            )
            change.record("delete", KIND, row.id, row.name, row, None)

        await self._store.change(actor, run)


def find_node(connection: sqlite3.Connection, ref: str) -> NodeRow:
    """The living node of that id or name. Raises NotFound."""
    rows = connection.execute(_LIVING + f" AND {column_of(ref)} = ?", [ref])
    return only([_row(row) for row in rows], KIND, ref)


def living_node(connection: sqlite3.Connection, name: str) -> NodeRow | None:
    """The living node of that name."""
    row = connection.execute(_LIVING + " AND name = ?", [name]).fetchone()
    return None if row is None else _row(row)


def ensure_node(change: Change, name: str, region: str) -> NodeRow:
    """The living node of that name, made in that region if there is none."""
    return living_node(change.connection, name) or _insert(change, name, region)


def _row(row: sqlite3.Row) -> NodeRow:
    return NodeRow(
        id=row["id"],
        name=row["name"],
        region=row["region"],
        wish=row["wish"],
        created_at_ns=row["created_at_ns"],
        wish_reason=row["wish_reason"],
        wish_actor=row["wish_actor"],
        wished_at_ns=row["wished_at_ns"],
    )


def _refuse_taken(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute(_LIVING + " AND name = ?", [name]).fetchone():
        raise AlreadyExists(f"There is a node {name!r} already.", next_step="Choose another name.")


def _insert(change: Change, name: str, region: str) -> NodeRow:
    row = NodeRow(
        NodeId(change.new_id(KIND)),
        check_name(KIND, name),
        ensure_region(change, region),
        "serving",
        change.now_ns,
    )
    change.connection.execute(
        "INSERT INTO nodes (id, name, region, created_at_ns) VALUES (?, ?, ?, ?)",
        [row.id, row.name, row.region, row.created_at_ns],
    )
    change.record("create", KIND, row.id, row.name, None, row)
    return row


def _save(change: Change, action: str, before: NodeRow, after: NodeRow) -> NodeRow:
    if after != before:
        change.connection.execute(
            "UPDATE nodes SET name = ?, region = ?, wish = ?, wish_reason = ?, wish_actor = ?,"
            " wished_at_ns = ? WHERE id = ?",
            [
                after.name,
                after.region,
                after.wish,
                after.wish_reason,
                after.wish_actor,
                after.wished_at_ns,
                after.id,
            ],
        )
        change.record(action, KIND, after.id, after.name, before, after)
    return after
