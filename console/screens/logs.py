"""6 Logs: the appliance's log, the audit, alerts, and what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widget import Widget

from appliance.wire.stream import Topic
from console.actions import Action, plain
from console.cells import Cell, Column, Row
from console.screens.logs_audit import AuditTab
from console.screens.logs_log import LogTab
from console.screens.logs_tab import Tab
from console.screens.logs_words import (
    alert_key,
    alert_lines,
    event_cells,
    event_key,
    level,
    printable,
)
from console.screens.ops_words import Line, field
from console.store import Changes, Store
from console.view import View
from console.widgets.dialogs import TextDialog
from console.widgets.line import fit
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import MISSING, ago, or_missing

_ALERTS: Final = (
    Column("severity", "SEVERITY", 10),
    Column("subject", "OF", 11, priority=2),
    Column("text", "WHAT", 24, grow=True),
    Column("age", "SINCE", 7, right=True),
    Column("known", "KNOWN BY", 12, priority=3),
)
_EVENTS: Final = (
    Column("at", "AT", 11),
    Column("severity", "SEVERITY", 10, priority=2),
    Column("kind", "KIND", 16, priority=3),
    Column("text", "WHAT HAPPENED", 30, grow=True),
)
_TITLES: Final = {"log": "l Log", "audit": "u Audit", "alerts": "a Alerts", "events": "e Events"}
_TOLD_LINES: Final = 6


class AlertsTab(Tab):
    """What wants an administrator, the worst first; those that are known of last."""

    def __init__(self) -> None:
        super().__init__(
            "alerts",
            LiveTable(
                _ALERTS,
                self._cells,
                sort_key=alert_key,
                sort_by="severity",
                empty="Nothing wants attention.",
            ),
        )

    def update(self, store: Store, changes: Changes) -> None:
        if changes.touches("alerts"):
            self.table.replace(store.table("alerts"))
        else:
            self.table.repaint()  # ages

    def _cells(self, _row_id: str, row: Row) -> Sequence[Cell]:
        known = row.get("acknowledged_at")
        return (
            Cell("○ known", "dim") if known else level(row.get("severity")),
            Cell(str(row.get("subject", "")), "dim"),
            Cell(printable(row.get("text", "")), "dim" if known else "plain"),
            Cell(ago(row.get("since"), self.view.console.now()), "dim"),
            Cell(or_missing(row.get("acknowledged_by")), "dim"),
        )

    def note(self) -> Cell:
        rows = [self.table.row(row_id) or {} for row_id in self.table.shown]
        waiting = sum(not row.get("acknowledged_at") for row in rows)
        if not rows:
            return Cell("all is well", "good")
        return Cell(f"{waiting} open, {len(rows) - waiting} known", "warn" if waiting else "dim")

    def told(self, width: int) -> list[Line]:
        row = self.row()
        return [] if row is None else alert_lines(row, width, self.view.console.now())

    def actions(self) -> Sequence[Action]:
        row_id, row = self.table.current, self.row()
        if row_id is None or row is None or row.get("acknowledged_at"):
            return ()
        return (
            Action(
                key="A",
                title="Acknowledge",
                role="operator",
                argv=plain("alert", "acknowledge", row_id),
                done="Acknowledged: it stays until its cause is gone.",
            ),
        )

    async def open(self, row_id: str) -> None:
        """Where its subject is seen; an alert without such a place is read in full."""
        from console.screens.places import alert_place  # noqa: PLC0415 (only when one is opened)

        row = self.table.row(row_id) or {}
        console = self.view.console
        mode, part = alert_place(row, console.store)
        if part == "alerts":
            step = f"\n\nDo: {row['next_step']}" if row.get("next_step") else ""
            console.push_screen(TextDialog("Alert", printable(row.get("text", "")) + step))
            return
        await console.go(mode)
        if console.top is not None:
            console.top.reveal(part)


class EventsTab(Tab):
    """What happened, the newest at the end, followed while the cursor is there."""

    def __init__(self) -> None:
        super().__init__(
            "events",
            LiveTable(
                _EVENTS,
                event_cells,
                sort_key=event_key,
                sort_by="at",
                empty="Nothing happened since the appliance keeps note.",
            ),
        )

    def update(self, store: Store, changes: Changes) -> None:
        if not changes.touches("events"):
            return
        followed = self.at_end()
        if "events" in changes.whole:
            self.table.replace(store.table("events"))
        else:
            rows = store.table("events")
            new = changes.rows.get("events", frozenset())
            gone = changes.gone.get("events", frozenset())
            self.table.patch({each: rows[each] for each in new if each in rows}, gone)
        if followed:
            self.go_to_end()

    def note(self) -> Cell:
        return self.following()

    def told(self, width: int) -> list[Line]:
        row = self.row()
        if row is None:
            return []
        lines = field("what", printable(row.get("text", "")), width)
        of = f"{row.get('subject') or MISSING} {row.get('ref') or ''}".strip()
        return lines + field("of", f"{row.get('kind', '')}, {of}", width, "dim")

    async def open(self, row_id: str) -> None:
        from console.screens.places import alert_place  # noqa: PLC0415 (only when one is opened)

        row = self.table.row(row_id) or {}
        mode, part = alert_place(row, self.view.console.store)
        if part == "alerts":
            return
        await self.view.console.go(mode)
        top = self.view.console.top
        if top is not None:
            top.reveal(part)


class LogsView(View):
    """One table at a time; letters change between them."""

    DEFAULT_CSS: ClassVar[str] = """
    LogsView #tabs { height: 1; }
    LogsView #tables { height: 1fr; }
    LogsView #told { height: 7; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("l", "tab('log')", "The log"),
        Binding("u", "tab('audit')", "The audit"),
        Binding("a", "tab('alerts')", "Alerts"),
        Binding("e", "tab('events')", "Events"),
        Binding("left", "turn(-1)", "The tab before", show=False),
        Binding("right", "turn(1)", "The next tab", show=False),
        Binding("v", "level", "Level of the log"),
        Binding("b", "by", "Only by this account"),
        Binding("o", "object", "Only of this object"),
        Binding("r", "again", "Read again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._log, self._audit = LogTab(), AuditTab()
        tabs: Sequence[Tab] = (self._log, self._audit, AlertsTab(), EventsTab())
        self._tabs: Mapping[str, Tab] = {tab.name: tab for tab in tabs}
        self._tab: Tab = self._log
        self._bar = Lines(id="tabs")
        self._told = Lines()

    def compose(self) -> ComposeResult:
        yield self._bar
        with Vertical(id="tables"):
            for name, tab in self._tabs.items():
                tab.view = self
                tab.panel = Panel(name.title(), tab.table, id=f"tab-{name}")
                tab.panel.display = tab is self._tab
                yield tab.panel
        yield Panel("What it says", self._told, id="told")

    def topics(self) -> frozenset[Topic]:
        return frozenset({"alerts", "events"} if self._tab.name == "events" else {"alerts"})

    def update(self, store: Store, changes: Changes) -> None:
        self._tab.update(store, changes)
        self.tell()

    def shown(self) -> None:
        self._tab.shown()
        self.tell()

    def home(self) -> Widget | None:
        return self._tab.table

    def actions(self) -> Sequence[Action]:
        return self._tab.actions()

    def subject(self) -> Any:
        return self._tab.subject()

    def reveal(self, part: str) -> None:
        if part in self._tabs:
            self.action_tab(part)

    def action_tab(self, name: str) -> None:
        tab = self._tabs[name]
        if tab is not self._tab:
            assert self._tab.panel is not None
            assert tab.panel is not None
            self._tab.panel.display, tab.panel.display = False, True
            self._tab.left()
            self._tab = tab
            self.console.topics_changed()
            tab.update(self.store, Changes.everything(self.topics()))
            tab.shown()
        tab.table.focus()
        self.tell()
        self.selection_changed()

    def action_turn(self, step: int) -> None:
        names = list(self._tabs)
        self.action_tab(names[(names.index(self._tab.name) + step) % len(names)])

    def action_level(self) -> None:
        if self._tab is self._log:
            self._log.turn_level()

    def action_by(self) -> None:
        if self._tab is self._audit:
            self._audit.only("who")

    def action_object(self) -> None:
        if self._tab is self._audit:
            self._audit.only("id")

    def action_again(self) -> None:
        self._tab.shown()

    def on_resize(self) -> None:
        self.tell()

    def tell(self) -> None:
        """The bar, the title and what the row under the cursor says."""
        alerts = sum(not row.get("acknowledged_at") for row in self.store.table("alerts").values())
        cells = [Cell(" ")]
        for name, title in _TITLES.items():
            text = f"{title} {alerts}" if name == "alerts" and alerts else title
            if name == self._tab.name:
                cells.append(Cell(f"[{text}]", "accent"))
            else:
                waiting = name == "alerts" and alerts
                cells.append(Cell(f" {text} ", "warn" if waiting else "dim"))
            cells.append(Cell(" "))
        self._bar.show([cells])
        if self._tab.panel is not None:
            self._tab.panel.entitle(self._tab.title(), self._tab.note())
        lines = self._tab.told(self.console.size.width)
        if len(lines) > _TOLD_LINES:  # Enter shows all of it
            *head, last = lines[_TOLD_LINES - 1]
            cut = fit(last.text, max(1, len(last.text) - 2)).rstrip("…") + " …"
            lines = [*lines[: _TOLD_LINES - 1], [*head, Cell(cut, last.tone)]]
        self._told.show(lines)

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.tell()
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        await self._tab.open(event.row_id)
