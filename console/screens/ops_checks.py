"""Health checks: run, seen as they come, each with what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding

from appliance.wire.checks import CheckResult
from console.cells import Cell, Column, Row
from console.client import AdminError, decoded
from console.screens.ops_words import ORDER, health, outcome
from console.screens.ops_words import field as told
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import milliseconds

_COLUMNS: Final = (
    Column("outcome", "RESULT", 10),
    Column("name", "CHECK", 20),
    Column("subject", "OF", 14, priority=2),
    Column("seen", "SEEN", 24, grow=True),
    Column("took", "TOOK", 6, right=True, priority=3),
)
_SILENCE_S: Final = 180.0  # an engine may take its time for a token


@dataclass(slots=True)
class Health:
    """The last run, for as long as the console is open."""

    results: list[CheckResult] = field(default_factory=list)
    began: datetime | None = None
    running: bool = False


class ChecksView(View):
    """Runs the checks when it is opened the first time, and again with `r`."""

    DEFAULT_CSS: ClassVar[str] = "ChecksView #told { height: 7; }"
    BINDINGS: ClassVar[list[Any]] = [Binding("r", "run", "Run the checks")]
    title = "Health checks"

    def __init__(self, health_of_site: Health) -> None:
        super().__init__()
        self._health = health_of_site
        self._table = LiveTable(
            _COLUMNS, _cells, sort_key=_sort_key, sort_by="outcome", empty="r runs the checks."
        )
        self._told = Lines()
        self._followed: str | None = None

    def compose(self) -> ComposeResult:
        yield Panel("Health checks", self._table, id="checks")
        yield Panel("What it says", self._told, id="told")

    def shown(self) -> None:
        self._show()
        if self._health.began is None:
            self.action_run()

    def action_run(self) -> None:
        if not self._health.running:
            self.load(self._run(), name="checks")

    def subject(self) -> Any:
        return [msgspec.to_builtins(result) for result in self._health.results]

    async def _run(self) -> None:
        """Each result is shown when it comes; what was seen before goes with the first one."""
        health_now, results = self._health, []
        health_now.running, health_now.began = True, self.console.now()
        self._table.say_empty("Running…")
        try:
            lines = self.admin.lines("/v1/checks", silence_s=_SILENCE_S)
            async for line in lines:
                if line:
                    results.append(decoded(line, CheckResult))
                    health_now.results = results
                    self._show()
        except AdminError as error:
            self._table.say_empty(error.sentence)
            if not results:
                health_now.began = None
            raise
        finally:
            health_now.running = False
            if self.is_attached:
                self._show()

    def _show(self) -> None:
        rows = {f"{r.name} {r.subject}": msgspec.to_builtins(r) for r in self._health.results}
        untouched = self._table.current == self._followed
        self._table.replace(rows)
        if untouched and self._table.shown:
            # The worst is at the top; the cursor stays there until somebody moves it.
            self._table.select(self._table.shown[0])
            self._followed = self._table.current
        state, sentence = health(
            *(self._health.results, self._health.began, self.console.now()),
            running=self._health.running,
        )
        self.panel("#checks").entitle("Health checks", Cell(sentence, state.tone))
        self._tell()

    def _tell(self) -> None:
        row = self._table.row(self._table.current) if self._table.current else None
        if row is None:
            self._told.show([[Cell(" cic doctor", "dim")]])
            return
        width = self.console.size.width
        lines = told("seen", row["seen"], width)
        if row["fix"] and row["outcome"] != "ok":
            lines += told("do", row["fix"], width, "accent")
        lines += told("why", row["why"], width, "dim")
        self._told.show(lines)

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self._tell()


def _sort_key(_row_id: str, row: Row, key: str) -> Any:
    if key == "outcome":
        return (ORDER.index(row["outcome"]), row["name"], row["subject"])
    return row["took_ms"] if key == "took" else str(row.get(key, ""))


def _cells(_row_id: str, row: Row) -> Sequence[Cell]:
    return (
        outcome(row["outcome"]),
        Cell(row["name"]),
        Cell(row["subject"], "dim"),
        Cell(row["seen"]),
        Cell(milliseconds(row["took_ms"]), "dim"),
    )
