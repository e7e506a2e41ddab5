"""Machines lent from clouds: what they cost, and giving them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from textual import on
from textual.app import ComposeResult

from appliance.wire.burst import Burst
from console.actions import Action
from console.cells import Cell, Column, Row
from console.screens.fleet_actions import new_burst, of_burst, plan_burst
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import count, or_missing, state

_COLUMNS: Final = (
    Column("name", "NAME", 12, grow=True),
    Column("state", "STATE", 11),
    Column("gpu", "GPU", 14),
    Column("nodes", "NODES", 5, right=True),
    Column("spent", "SPENT", 8, right=True),
    Column("budget", "BUDGET", 8, right=True),
    Column("reason", "REASON", 24, priority=2),
)
_ASK_EVERY: Final = 5  # Ticks


class BurstsView(View):
    title = "lent machines"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(
            _COLUMNS, _cells, sort_by="name", empty="None. V asks for prices, N lends machines."
        )
        self._ticks = 0

    def compose(self) -> ComposeResult:
        yield Panel("Machines lent from clouds", self._table)

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (asked for instead)
        self._ticks += 1
        if self._ticks % _ASK_EVERY == 0:
            self.shown()

    def shown(self) -> None:
        self.load(self._read(), name="bursts")

    async def _read(self) -> None:
        bursts = await self.admin.get("/v1/bursts", list[Burst])
        self._table.replace({burst.id: msgspec.to_builtins(burst) for burst in bursts})

    def actions(self) -> Sequence[Action]:
        row = self._table.row(self._table.current) if self._table.current else None
        return (*(of_burst(row) if row else ()), plan_burst(), new_burst())

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()


def _cells(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(str(row.get("name", ""))),
        state(row.get("state")),
        Cell(f"{count(row.get('gpus'))}x {row.get('gpu', '')}"),
        Cell(count(row.get("nodes"))),
        Cell(or_missing(row.get("spent"))),
        Cell(or_missing(row.get("budget"))),
        Cell(or_missing(row.get("reason")), "dim"),
    ]
