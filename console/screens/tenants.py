"""4 Tenants: who is billed, what they do now, and how near they are to their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding

from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row
from console.screens.reservation_actions import reserve
from console.screens.tenant import TenantView
from console.screens.tenant_actions import limits, new_tenant, of_tenant
from console.store import Changes, Store
from console.view import View
from console.widgets.bars import bar
from console.widgets.keeping import keep
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import MISSING, count, percent, state

_COLUMNS: Final = (
    Column("name", "TENANT", 14, grow=True),
    Column("plan", "PLAN", 10, priority=3),
    Column("state", "STATE", 11),
    Column("environments", "ENVS", 4, right=True, priority=4),
    Column("keys", "KEYS", 5, right=True, priority=3),
    Column("running", "RUN", 4, right=True),
    Column("requests", "REQ/s", 6, right=True, priority=2),
    Column("rate", "TOK/s", 6, right=True),
    Column("limit", "LIMIT", 5, right=True),
    Column("bar", "USED", 10, priority=2),
    Column("which", "OF", 16, priority=5),
)
_FIELDS: Final = {
    "running": "requests_running",
    "requests": "requests_per_s",
    "rate": "output_tokens_per_s",
    "limit": "limit_percent",
    "bar": "limit_percent",
    "which": "limit",
}


class TenantsView(View):
    """All tenants. Enter opens one."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("a", "keys", "All keys"),
        Binding("v", "reserved", "Reserved capacity"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(
            _COLUMNS,
            _cells,
            sort_key=lambda _row_id, row, column: row.get(_FIELDS.get(column, column)),
            sort_by="name",
            empty="No tenants yet. N makes one.",
        )
        self._wanted: str | None = None

    def compose(self) -> ComposeResult:
        yield Panel("Tenants", self._table, id="tenants")

    def topics(self) -> frozenset[Topic]:
        return frozenset({"tenants"})

    def update(self, store: Store, changes: Changes) -> None:
        keep(self._table, store, changes, "tenants")
        if self._wanted is not None and self._wanted in store.table("tenants"):
            self._table.select(self._wanted)
            self._wanted = None
        note = Cell("a all keys  v reserved", "dim")
        self.panel().entitle(f"Tenants {len(store.table('tenants'))}", note)

    def reveal(self, part: str) -> None:
        if part == "keys":
            self.call_later(self.action_keys)
            return
        if part.startswith(("reserv", "rsv_")):
            self.call_later(self.action_reserved, part if part.startswith("rsv_") else None)
            return
        self._wanted = part
        self._table.select(part)

    def actions(self) -> Sequence[Action]:
        row = self._selected()
        of_row = of_tenant(row) if row is not None else []
        if row is not None:
            of_row.append(reserve(str(row["name"]), key="C"))
        return (
            *of_row,
            new_tenant(),
            limits("the whole site", ["--global"], key="G", title="Global limits"),
        )

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    def _selected(self) -> Row | None:
        return self._table.row(self._table.current) if self._table.current else None

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        await self.console.open(TenantView(event.row_id))

    async def action_reserved(self, select: str | None = None) -> None:
        from console.screens.reservations import (  # noqa: PLC0415 (only when it is opened)
            ReservationsView,
        )

        await self.console.open(ReservationsView(select=select))

    async def action_keys(self) -> None:
        from console.screens.keys import KeysView  # noqa: PLC0415 (only when it is opened)

        await self.console.open(KeysView())


def _cells(_row_id: str, row: Row) -> list[Cell]:
    used = row.get("limit_percent")
    gauge = bar(used, 100, 10)
    return [
        Cell(str(row.get("name", ""))),
        Cell(str(row.get("plan", ""))),
        state(row.get("state")),
        Cell(count(row.get("environments"))),
        Cell(count(row.get("keys"))),
        Cell(count(row.get("requests_running"))),
        Cell(count(row.get("requests_per_s"))),
        Cell(count(row.get("output_tokens_per_s"))),
        Cell(percent(used), gauge[0].tone if used is not None and used >= 80 else "plain"),
        Cell("".join(part.text for part in gauge), gauge[0].tone),
        Cell(str(row.get("limit") or MISSING).replace("_", " "), "dim"),
    ]
