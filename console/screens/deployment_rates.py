"""Tokens a second of the deployments, minute by minute, as a table shows them."""

from __future__ import annotations

from appliance.wire.stream import HistorySeries
from console.cells import Cell, Row
from console.client import AdminError, Query
from console.store import Store
from console.trends import SPAN, Trends
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.spark import spark


class DeploymentRates:
    """Of one view and its table. What was before the console is the appliance's history."""

    def __init__(self, view: View, minutes: int) -> None:
        self._view = view
        self._minutes = minutes
        self._trends = Trends(minutes)

    def cell(self, row: Row) -> Cell:
        """A sign a minute, the one under way last."""
        return Cell(spark(self._trends.of(str(row.get("name"))), self._minutes), "accent")

    def note(self, store: Store) -> bool:
        """Remember what they do now. Whether all of them moved by a minute."""
        rows = store.table("deployments").values()
        values = {str(row.get("name")): row.get("output_tokens_per_s") for row in rows}
        return self._trends.note(self._view.console.now().timestamp(), values)

    async def read(self, table: LiveTable) -> None:
        """Where it cannot be read they begin with the console."""
        query: Query = {
            "series": "output_tokens_per_s", "of": "deployment",
            "span": SPAN, "newest": self._minutes,
        }
        try:
            past = await self._view.admin.get("/v1/history", list[HistorySeries], query)
        except AdminError:
            return
        self._trends.seed(past)
        self.note(self._view.store)
        table.repaint()
