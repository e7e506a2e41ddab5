"""Regions: where environments are pinned to, with their price multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from textual import on
from textual.app import ComposeResult

from appliance.wire.fleet import Region
from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row
from console.screens.fleet_actions import new_region, of_region
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import day_time

_COLUMNS: Final = (
    Column("name", "REGION", 16, grow=True),
    Column("multiplier", "PRICE", 7, right=True),
    Column("nodes", "NODES", 5, right=True),
    Column("created", "SINCE", 16, priority=2),
)


class RegionsView(View):
    title = "regions"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(_COLUMNS, self._cells, sort_by="name")

    def compose(self) -> ComposeResult:
        yield Panel("Regions", self._table)

    def topics(self) -> frozenset[Topic]:
        return frozenset({"nodes"})

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (read when shown)
        if changes.touches("nodes"):
            self._table.repaint()

    def shown(self) -> None:
        self.load(self._read(), name="regions")

    async def _read(self) -> None:
        regions = await self.admin.get("/v1/regions", list[Region])
        self._table.replace({region.name: msgspec.to_builtins(region) for region in regions})

    def actions(self) -> Sequence[Action]:
        row = self._table.row(self._table.current) if self._table.current else None
        return (*(of_region(row) if row else ()), new_region())

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    def _cells(self, _row_id: str, row: Row) -> list[Cell]:
        name = row.get("name")
        nodes = sum(node.get("region") == name for node in self.store.table("nodes").values())
        return [
            Cell(str(name)),
            Cell(f"x{row.get('multiplier_bp', 10_000) / 10_000:g}"),
            Cell(str(nodes)),
            Cell(day_time(row.get("created_at"))),
        ]
