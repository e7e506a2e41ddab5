"""Bursts: GPU nodes lent from clouds. What was asked for, each machine of it, and what it cost.

A row outlives its machines: what was paid stays on record. Every change of a burst's wish and of a
member's state is in the audit.
"""

import sqlite3
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec

from appliance.registry.errors import AlreadyExists, InvalidValue, NotFound
from appliance.registry.names import NAME_CHARS_MAX, check_name, column_of, only
from appliance.registry.store import Change, Store

KIND: Final = "burst"
MEMBER_KIND: Final = "member"
ENDED_SHOWN: Final = 20
# Names of its nodes are made from it: "burst-<name>-<two numbers>".
_NAME_CHARS_MAX: Final = NAME_CHARS_MAX - 16

Wish = Literal["up", "down"]
Spot = Literal["prefer", "only", "never"]
# wanted: to be launched, perhaps after a wait · launching: SkyPilot works on it · joining: the
# machine is there, its agent is not · running: the node is ready · leaving: it is being emptied ·
# ending: SkyPilot takes it down · gone: it costs nothing any more
MemberState = Literal["wanted", "launching", "joining", "running", "leaving", "ending", "gone"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One machine type in one region, at one of its two prices, for an hour."""

    cloud: str
    region: str
    instance_type: str
    gpu: str
    gpus: int
    spot: bool
    price_micro: int


@dataclass(frozen=True, slots=True)
class BurstSpec:
    """What a burst asks the clouds for. Empty `clouds` or `regions`: any."""

    gpu: str
    gpus: int  # of one node
    nodes: int
    spot: Spot
    budget_micro: int  # for the whole burst
    clouds: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    price_max_micro: int | None = None  # of one node in an hour
    idle_s: int | None = None  # without a request, before it is given back


@dataclass(frozen=True, slots=True)
class BurstRow:
    id: str
    name: str
    spec: BurstSpec
    wish: Wish
    reason: str  # why it is to end
    created_at_ns: int
    ended_at_ns: int | None


@dataclass(frozen=True, slots=True)
class MemberRow:
    id: str
    burst_id: str
    ordinal: int
    node_name: str
    state: MemberState
    reason: str
    since_ns: int  # in this state
    not_before_ns: int = 0  # launched no sooner
    request: str | None = None  # of SkyPilot's, that is under way
    offer: Offer | None = None  # what was taken
    price_micro: int = 0  # what an hour is reckoned with: the dearest until one was taken
    paid_from_ns: int | None = None
    paid_until_ns: int | None = None

    @property
    def cluster(self) -> str:
        """SkyPilot's name for the machine."""
        return f"cic-{self.id.removeprefix('mem_')}"


class Bursts:
    """`ref` is an id, or the name of a burst that has not ended."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, actor: str, name: str, spec: BurstSpec) -> BurstRow:
        """Raises InvalidValue, AlreadyExists."""

        def run(change: Change) -> BurstRow:
            check_name(KIND, name)
            if len(name) > _NAME_CHARS_MAX:
                raise InvalidValue(
                    f"{name!r} cannot be the name of a burst.",
                    next_step=f"Use at most {_NAME_CHARS_MAX} characters.",
                )
            taken = "SELECT 1 FROM bursts WHERE name = ? AND ended_at_ns IS NULL"
            if change.connection.execute(taken, [name]).fetchone():
                raise AlreadyExists(
                    f"There is a burst {name!r} already.", next_step="Choose another name."
                )
            row = BurstRow(change.new_id(KIND), name, spec, "up", "", change.now_ns, None)
            change.connection.execute(
                "INSERT INTO bursts VALUES (?, ?, ?, ?, ?, ?, NULL)",
                [row.id, name, _json(spec), row.wish, row.reason, row.created_at_ns],
            )
            change.record("create", KIND, row.id, name, None, row)
            return row

        return await self._store.change(actor, run)

    async def list(self) -> list[BurstRow]:
        """Those that have not ended, and the last that have; the newest last."""
        living = "SELECT * FROM bursts WHERE ended_at_ns IS NULL"
        ended = "SELECT * FROM bursts WHERE ended_at_ns IS NOT NULL ORDER BY ended_at_ns DESC"
        return await self._store.read(
            lambda connection: sorted(
                (
                    _burst(row)
                    for query in (living, f"{ended} LIMIT {ENDED_SHOWN}")
                    for row in connection.execute(query)
                ),
                key=lambda row: row.created_at_ns,
            )
        )

    async def get(self, ref: str) -> BurstRow:
        """Raises NotFound."""
        return await self._store.read(lambda connection: _find(connection, ref))

    async def members(self) -> tuple[MemberRow, ...]:
        """Of all bursts, the oldest first: also those that are gone, which were paid for."""
        query = "SELECT * FROM burst_members ORDER BY rowid"
        return await self._store.read(
            lambda connection: tuple(_member(row) for row in connection.execute(query))
        )

    async def end(self, actor: str, ref: str, reason: str) -> BurstRow:
        """Give its machines back, from now on. Raises NotFound."""

        def run(change: Change) -> BurstRow:
            before = _find(change.connection, ref)
            if before.wish == "down" or before.ended_at_ns is not None:
                return before
            after = replace(before, wish="down", reason=reason)
            change.connection.execute(
                "UPDATE bursts SET wish = ?, reason = ? WHERE id = ?",
                [after.wish, reason, after.id],
            )
            change.record("end", KIND, after.id, after.name, before, after)
            return after

        return await self._store.change(actor, run)

    async def close(self, actor: str, burst_id: str) -> None:
        """Its last machine is gone."""

        def run(change: Change) -> None:
            before = _find(change.connection, burst_id)
            if before.ended_at_ns is not None:
                return
            change.connection.execute(
                "UPDATE bursts SET ended_at_ns = ? WHERE id = ?", [change.now_ns, burst_id]
            )
            after = replace(before, ended_at_ns=change.now_ns)
            change.record("close", KIND, burst_id, before.name, before, after)

        await self._store.change(actor, run)

    async def add_member(
        self, actor: str, burst: BurstRow, ordinal: int, *, serial: int, not_before_ns: int
    ) -> MemberRow:
        """Ask for one more machine. `serial` counts those that this place has had."""

        def run(change: Change) -> MemberRow:
            row = MemberRow(
                id=change.new_id(MEMBER_KIND),
                burst_id=burst.id,
                ordinal=ordinal,
                node_name=f"burst-{burst.name}-{ordinal}-{serial}",
                state="wanted",
                reason="",
                since_ns=change.now_ns,
                not_before_ns=not_before_ns,
            )
            change.connection.execute(
                "INSERT INTO burst_members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                _values(row),
            )
            change.record("create", MEMBER_KIND, row.id, row.node_name, None, row)
            return row

        return await self._store.change(actor, run)

    async def save_member(self, actor: str, after: MemberRow) -> None:
        """Write down what became of a machine. Raises NotFound."""

        def run(change: Change) -> None:
            found = change.connection.execute(
                "SELECT * FROM burst_members WHERE id = ?", [after.id]
            ).fetchone()
            if found is None:
                raise NotFound(f"There is no member {after.id!r}.")
            before = _member(found)
            if after == before:
                return
            change.connection.execute(
                "UPDATE burst_members SET state = ?, reason = ?, since_ns = ?, not_before_ns = ?,"
                " request = ?, offer = ?, price_micro = ?, paid_from_ns = ?, paid_until_ns = ?"
                " WHERE id = ?",
                [*_values(after)[4:], after.id],
            )
            change.record(after.state, MEMBER_KIND, after.id, after.node_name, before, after)

        await self._store.change(actor, run)


def _find(connection: sqlite3.Connection, ref: str) -> BurstRow:
    column = column_of(ref)
    living = " AND ended_at_ns IS NULL" if column == "name" else ""
    rows = connection.execute(f"SELECT * FROM bursts WHERE {column} = ?{living}", [ref])  # noqa: S608 (constants)
    return only([_burst(row) for row in rows], KIND, ref)


def _burst(row: sqlite3.Row) -> BurstRow:
    return BurstRow(
        id=row["id"],
        name=row["name"],
        spec=msgspec.json.decode(row["spec"], type=BurstSpec),
        wish=row["wish"],
        reason=row["reason"],
        created_at_ns=row["created_at_ns"],
        ended_at_ns=row["ended_at_ns"],
    )


def _member(row: sqlite3.Row) -> MemberRow:
    values = dict(row)
    offer = values.pop("offer")
    return MemberRow(
        offer=None if offer is None else msgspec.json.decode(offer, type=Offer), **values
    )


def _values(row: MemberRow) -> list[object]:
    """In the order of the table's columns."""
    return [
        row.id,
        row.burst_id,
        row.ordinal,
        row.node_name,
        row.state,
        row.reason,
        row.since_ns,
        row.not_before_ns,
        row.request,
        None if row.offer is None else _json(row.offer),
        row.price_micro,
        row.paid_from_ns,
        row.paid_until_ns,
    ]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
