"""Regions with their price multipliers. A region has no id: its name is what is written down."""

import sqlite3
from dataclasses import dataclass, replace
from typing import Final

from appliance.registry.errors import AlreadyExists, InUse
from appliance.registry.names import check_count, check_name, only
from appliance.registry.store import Change, Store

KIND: Final = "region"
NEUTRAL_BP: Final = 10_000
MULTIPLIER_BP_MAX: Final = 1_000_000  # a hundredfold: more is a typing mistake
_LIVING: Final = "SELECT * FROM regions WHERE deleted_at_ns IS NULL"
_IN_USE: Final = """SELECT
    (SELECT count(*) FROM environments WHERE deleted_at_ns IS NULL AND region = :name)
        AS environments,
    (SELECT count(*) FROM deployments WHERE deleted_at_ns IS NULL AND region = :name)
        AS deployments,
    (SELECT count(*) FROM nodes WHERE deleted_at_ns IS NULL AND region = :name) AS nodes"""


@dataclass(frozen=True, slots=True)
class RegionRow:
    name: str
    multiplier_bp: int  # basis points: 7000 is 0.7, 10000 is 1.0
    created_at_ns: int


class Regions:
    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, actor: str, name: str, multiplier_bp: int = NEUTRAL_BP) -> RegionRow:
        """Raises InvalidValue, AlreadyExists."""

        def run(change: Change) -> RegionRow:
            if change.connection.execute(_LIVING + " AND name = ?", [name]).fetchone():
                raise AlreadyExists(
                    f"There is a region {name!r} already.",
                    next_step="Change its multiplier, or choose another name.",
                )
            return insert_region(change, name, multiplier_bp)

        return await self._store.change(actor, run)

    async def list(self) -> list[RegionRow]:
        """By name."""
        return await self._store.read(
            lambda connection: [_row(r) for r in connection.execute(_LIVING + " ORDER BY name")]
        )

    async def get(self, name: str) -> RegionRow:
        """Raises NotFound."""
        return await self._store.read(lambda connection: _find(connection, name))

    async def update(self, actor: str, name: str, *, multiplier_bp: int) -> RegionRow:
        def run(change: Change) -> RegionRow:
            before = _find(change.connection, name)
            after = replace(before, multiplier_bp=_checked(multiplier_bp))
            if after != before:
                change.connection.execute(
                    "UPDATE regions SET multiplier_bp = ? WHERE name = ? AND deleted_at_ns IS NULL",
                    [after.multiplier_bp, name],
                )
                change.record("update", KIND, name, name, before, after)
            return after

        return await self._store.change(actor, run)

    async def delete(self, actor: str, name: str) -> None:
        """Raises InUse while a living environment, deployment or node is in it."""

        def run(change: Change) -> None:
            row = _find(change.connection, name)
            uses = change.connection.execute(_IN_USE, {"name": name}).fetchone()
            if any(uses):
                raise InUse(
                    f"The region {name!r} is not empty (environments: {uses['environments']}, "
                    f"deployments: {uses['deployments']}, nodes: {uses['nodes']}).",
                    next_step="Move or delete those first.",
                )
            change.connection.execute(
                "UPDATE regions SET deleted_at_ns = ? WHERE name = ? AND deleted_at_ns IS NULL",
                [change.now_ns, name],
            )
            change.record("delete", KIND, name, name, row, None)

        await self._store.change(actor, run)


def ensure_region(change: Change, name: str) -> str:
    """`name` itself, registered with the neutral multiplier when it is not known yet."""
    if not change.connection.execute(_LIVING + " AND name = ?", [name]).fetchone():
        insert_region(change, name, NEUTRAL_BP)
    return name


def insert_region(change: Change, name: str, multiplier_bp: int) -> RegionRow:
    row = RegionRow(check_name(KIND, name), _checked(multiplier_bp), change.now_ns)
    change.connection.execute(
        "INSERT INTO regions VALUES (?, ?, ?, NULL)",
        [row.name, row.multiplier_bp, row.created_at_ns],
    )
    change.record("create", KIND, name, name, None, row)
    return row


def _find(connection: sqlite3.Connection, name: str) -> RegionRow:
    rows = connection.execute(_LIVING + " AND name = ?", [name])
    return only([_row(row) for row in rows], KIND, name)


def _row(row: sqlite3.Row) -> RegionRow:
    return RegionRow(row["name"], row["multiplier_bp"], row["created_at_ns"])


def _checked(multiplier_bp: int) -> int:
    return check_count("A price multiplier", multiplier_bp, lowest=0, highest=MULTIPLIER_BP_MAX)
