"""Tokens a second of the deployments, minute by minute, as a table shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from appliance.wire.stream import HistorySeries
from console.cells import Cell, Row
from console.client import AdminError, Query
from console.store import Store
from console.trends import SPAN, Trends
from console.view import View
from console.widgets.spark import spark

# Looks further apart than this may have left a minute out.
_APART_S: Final = 60.0


class DeploymentRates:
    """Of one view. What was before the console is the appliance's history."""

    def __init__(self, view: View, minutes: int = 60) -> None:
        self._view = view
        self._minutes = minutes
        self._trends = Trends(minutes)
        self._whole_s: float | None = None  # until when no minute is missing, wall clock

    def cell(self, row: Row) -> Cell:
        """A sign a minute, the one under way last."""
        return Cell(spark(self.of(row), self._minutes), "accent")

    def of(self, row: Row) -> list[float | None]:
        """The minutes, oldest first; None: not known."""
        return self._trends.of(str(row.get("name")))

    def note(self, store: Store) -> bool:
        """Remember what they do now. Whether all of them moved by a minute."""
        rows = store.table("deployments").values()
        values = {str(row.get("name")): row.get("output_tokens_per_s") for row in rows}
        now_s = self._view.console.now().timestamp()
        if self._whole_s is not None:
            self._whole_s = now_s if now_s - self._whole_s < _APART_S else None
        return self._trends.note(now_s, values)

    async def read(self, then: Callable[[], object], name: str = "") -> None:
        """What was not seen here, of one or of all. Else it begins with the console."""
        if self._whole_s is not None:
            return
        query: Query = {
            "series": "output_tokens_per_s",
            "of": f"deployment/{name}" if name else "deployment",
            "span": SPAN,
            "newest": self._minutes,
        }
        try:
            past = await self._view.admin.get("/v1/history", list[HistorySeries], query)
        except AdminError:
            return
        self._trends.seed(past)
        self._whole_s = self._view.console.now().timestamp()
        self.note(self._view.store)
        then()
