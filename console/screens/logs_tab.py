"""One of the tables of the logs' screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from console.cells import Cell, Row
from console.screens.ops_words import Line
from console.store import Changes, Store
from console.widgets.live_table import LiveTable

if TYPE_CHECKING:
    from console.actions import Action
    from console.screens.logs import LogsView
    from console.widgets.panel import Panel


class Tab:
    """A table and what is told of its rows. `view` and `panel` are given when it is mounted."""

    view: LogsView
    panel: Panel | None = None

    def __init__(self, name: str, table: LiveTable) -> None:
        self.name = name
        self.table = table

    def title(self) -> str:
        rows = len(self.table.shown)
        return f"{self.name.title()} {rows:,}" if rows else self.name.title()

    def note(self) -> Cell:
        """At the end of its title line."""
        return Cell("")

    def update(self, store: Store, changes: Changes) -> None:
        """The live stream brought something."""

    def shown(self) -> None:
        """It came to the front: read what the live stream does not bring."""

    def left(self) -> None:
        """Another one came to the front."""

    def told(self, width: int) -> list[Line]:  # noqa: ARG002 (of the others)
        """What the row under the cursor says in full."""
        return []

    def actions(self) -> Sequence[Action]:
        return ()

    def subject(self) -> Any:
        return [self.table.row(row_id) for row_id in self.table.shown]

    async def open(self, row_id: str) -> None:
        """Enter on a row."""

    def row(self) -> Row | None:
        return self.table.row(self.table.current) if self.table.current else None

    # A table whose newest row is the last one.

    def at_end(self) -> bool:
        shown = self.table.shown
        return not shown or self.table.current in (None, shown[-1])

    def go_to_end(self) -> None:
        if self.table.shown:
            self.table.select(self.table.shown[-1])

    def following(self) -> Cell:
        if self.at_end():
            return Cell("followed", "good")
        return Cell("End goes on following", "dim")
