"""A plain view of tables of the live stream, for what has no screen of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from textual.app import ComposeResult

from appliance.wire.stream import Topic
from console.cells import Cell, Column, Row
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.words import MISSING, state

_COLUMNS: Final = (
    Column("name", "NAME", 24, priority=1),
    Column("state", "STATE", 14, priority=1),
    Column("rest", "REST", 20, grow=True, priority=2),
)


def _cells(row_id: str, row: Row) -> tuple[Cell, ...]:
    rest = " ".join(
        f"{name}={MISSING if value is None else value}"
        for name, value in row.items()
        if name not in ("name", "state", "id")
    )
    name = str(row.get("name") or row.get("id") or row_id)
    return Cell(name), state(row.get("state")), Cell(rest, "dim")


class TablesView(View):
    """The rows of one topic as they came."""

    def __init__(self, topic: Topic) -> None:
        super().__init__()
        self._topic: Topic = topic
        self._table = LiveTable(_COLUMNS, _cells, sort_by="name")

    def compose(self) -> ComposeResult:
        yield self._table

    def topics(self) -> frozenset[Topic]:
        return frozenset({self._topic})

    def update(self, store: Store, changes: Changes) -> None:
        rows: Mapping[str, Row] = store.table(self._topic)
        if self._topic in changes.whole:
            self._table.replace(rows)
            return
        changed = {row_id: rows[row_id] for row_id in changes.changed(self._topic)}
        self._table.patch(changed, changes.ended(self._topic))

    def subject(self) -> Any:
        return list(self.store.table(self._topic).values())
