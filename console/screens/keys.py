"""All keys of the site in one table: for one of which only the beginning is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from textual import on
from textual.app import ComposeResult

from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row
from console.screens.tenant_actions import of_key
from console.store import Changes, Store
from console.view import View
from console.widgets.keeping import keep
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import day_time, state

_COLUMNS: Final = (
    Column("prefix", "KEY", 15),
    Column("tenant", "TENANT", 14, grow=True),
    Column("environment", "ENV", 10),
    Column("name", "NAME", 14),
    Column("state", "STATE", 11),
    Column("role", "ROLE", 9, priority=3),
    Column("expires_at", "EXPIRES", 16, priority=2),
)


class KeysView(View):
    """Every key of every tenant. `/` finds one by how it begins; Enter opens its tenant."""

    title = "keys"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(
            _COLUMNS,
            _cells,
            sort_key=lambda _row_id, row, column: row.get(column) or "",
            sort_by="prefix",
            empty="No keys yet. They are made in a tenant.",
        )

    def compose(self) -> ComposeResult:
        yield Panel("Keys", self._table)

    def topics(self) -> frozenset[Topic]:
        return frozenset({"keys", "tenants", "environments"})

    def update(self, store: Store, changes: Changes) -> None:
        keep(self._table, store, changes, "keys")
        text = f"Keys {len(store.table('keys')):,}"
        self.panel().entitle(text, Cell("/ finds one by how it begins", "dim"))

    def actions(self) -> Sequence[Action]:
        row = self._table.row(self._table.current) if self._table.current else None
        return () if row is None else of_key(row)

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        from console.screens.tenant import TenantView  # noqa: PLC0415 (only when one is opened)

        row = self._table.row(event.row_id)
        if row is not None:
            await self.console.open(TenantView(str(row["tenant_id"])))


def _cells(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(str(row.get("prefix", ""))),
        Cell(str(row.get("tenant", ""))),
        Cell(str(row.get("environment", ""))),
        Cell(str(row.get("name", ""))),
        state(row.get("state")),
        Cell(str(row.get("role", "")), "dim"),
        Cell(day_time(row.get("expires_at")) if row.get("expires_at") else "never"),
    ]
