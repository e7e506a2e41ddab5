"""One deployment: its replicas and their load, what they answer now, and what happened to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widget import Widget

from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row, Tone
from console.screens.deployment_history import HistoryView
from console.screens.deployment_rates import DeploymentRates
from console.screens.deployment_traces import EngineLogView, PlacementView, dumps_text
from console.screens.model_actions import of_deployment
from console.screens.models import allowed_by, replicas, waiting
from console.store import Changes, Store
from console.view import View
from console.widgets.dialogs import TextDialog
from console.widgets.line import wrapped
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.widgets.spark import spark
from console.words import (
    MISSING,
    ago,
    clock_time,
    count,
    duration,
    milliseconds,
    or_missing,
    percent,
    state,
)

_REPLICAS: Final = (
    Column("node", "NODE", 10, grow=True),
    Column("state", "STATE", 13),
    Column("running", "RUN", 4, right=True),
    Column("waiting", "WAIT", 4, right=True),
    Column("cache", "KV%", 4, right=True),
    Column("rate", "TOK/s", 6, right=True),
    Column("can", "CAN", 6, right=True, priority=3),
    Column("restarts", "RST", 3, right=True, priority=2),
    Column("since", "SINCE", 7, right=True, priority=2),
    Column("gpus", "GPUS", 4, right=True, priority=3),
    Column("generation", "GEN", 3, right=True, priority=4),
    Column("version", "ENGINE", 9, priority=5),
    Column("reason", "REASON", 24, priority=6),
    Column("id", "REPLICA", 12, priority=7),
)
_REPLICA_KEYS: Final = {
    "running": "requests_running",
    "waiting": "requests_waiting",
    "cache": "cache_used_percent",
    "rate": "output_tokens_per_s",
    "can": "tokens_per_s",
    "version": "engine_version",
}
_REQUESTS: Final = (
    Column("tenant", "TENANT", 10, grow=True),
    Column("phase", "PHASE", 9),
    Column("age", "AGE", 6, right=True),
    Column("input", "IN", 5, right=True, priority=2),
    Column("output", "OUT", 5, right=True),
    Column("node", "NODE", 10, priority=3),
    Column("key", "KEY", 14, priority=4),
    Column("client", "FROM", 13, priority=5),
)
_EVENTS: Final = (
    Column("at", "TIME", 8),
    Column("text", "WHAT HAPPENED", 20, grow=True),
)
_TREND_MINUTES: Final = 120
_WIDE: Final = 110  # columns from which requests and events stand side by side
_EVENT_ROWS: Final = 200
_REASON_LINES: Final = 5


class DeploymentView(View):
    """`deployment_id` is the row of the topic `deployments`."""

    DEFAULT_CSS: ClassVar[str] = """
    DeploymentView #facts { height: 4; }
    DeploymentView #replicas { height: 3fr; }
    DeploymentView #below { height: 2fr; }
    DeploymentView #requests { width: 3fr; }
    DeploymentView #events { width: 2fr; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("e", "explain", "Explain where its replicas run"),
        Binding("l", "logs", "Logs of its engines"),
        Binding("u", "dumps", "Dumps of engines that hung"),
        Binding("h", "history", "Its history"),
        Binding("v", "other", "Requests or events"),
    ]

    def __init__(self, deployment_id: str) -> None:
        super().__init__()
        self._deployment_id = deployment_id
        self._label = ""
        self._rates = DeploymentRates(self, _TREND_MINUTES)
        self._facts = Lines()
        self._events_first = False
        self._replicas = LiveTable(
            _REPLICAS,
            self._replica_cells,
            sort_key=lambda _id, row, column: row.get(_REPLICA_KEYS.get(column, column)),
            sort_by="node",
            empty="No replica is wanted.",
        )
        self._requests = LiveTable(
            _REQUESTS,
            self._request_cells,
            sort_key=_request_key,
            sort_by="age",
            empty="Nothing is asked of it now.",
        )
        self._events = LiveTable(
            _EVENTS,
            lambda _id, row: [
                Cell(clock_time(row.get("at")), "dim"),
                Cell(
                    str(row.get("text", "")),
                    "bad" if row.get("severity") in ("error", "fatal") else "plain",
                ),
            ],
            sort_key=lambda _id, row, _column: row.get("seq"),
            sort_by="at",
            descending=True,
            empty="Nothing happened to it that is still known.",
        )

    def compose(self) -> ComposeResult:
        yield Panel("Deployment", self._facts, id="facts")
        yield Panel("1 Replicas", self._replicas, id="replicas")
        with Horizontal(id="below"):
            yield Panel("2 Requests in flight", self._requests, id="requests")
            yield Panel("3 Events", self._events, id="events")

    def on_mount(self) -> None:
        self.set_interval(1.0, self._grow_older)

    def _grow_older(self) -> None:
        if self.console.top is self and not self.console.paused:
            self._requests.repaint()

    def on_resize(self) -> None:
        self._arrange()
        self._entitle()
        self._show_facts()

    def _arrange(self) -> None:
        wide = self.size.width >= _WIDE
        self.panel("#requests").display = wide or not self._events_first
        self.panel("#events").display = wide or self._events_first

    def home(self) -> Widget | None:
        return self._replicas

    def topics(self) -> frozenset[Topic]:
        return frozenset({"deployments", "replicas", "requests", "environments", "events"})

    def shown(self) -> None:
        row = self.store.row("deployments", self._deployment_id)
        if row is not None:
            self.load(self._rates.read(self._show_facts, str(row["name"])), name="rates")

    def update(self, store: Store, changes: Changes) -> None:
        row = store.row("deployments", self._deployment_id)
        if row is not None:
            self._label = self.title = str(row["name"])
            self._rates.note(store)
        elif store.fresh("deployments"):
            self._replicas.say_empty("This deployment is no more. Esc goes back.")
        self._show_facts()
        self._show(self._replicas, "replicas", store, changes)
        self._show(self._requests, "requests", store, changes)
        if changes.touches("events"):
            self._events.replace(self._own_events(store))
        self._entitle()

    def _show(self, table: LiveTable, topic: Topic, store: Store, changes: Changes) -> None:
        rows = store.table(topic)
        if topic in changes.whole:
            table.replace(self._own(rows))
        elif changes.touches(topic):
            changed = {each: rows[each] for each in changes.changed(topic) if each in rows}
            table.patch(self._own(changed), changes.ended(topic))

    def _own(self, rows: Mapping[str, Row]) -> dict[str, Row]:
        return {row_id: row for row_id, row in rows.items() if row.get("deployment") == self._label}

    def _own_events(self, store: Store) -> dict[str, Row]:
        own = {self._deployment_id, self._label, *self._own(store.table("replicas"))}
        found = [row_id for row_id, row in store.table("events").items() if row.get("ref") in own]
        return {row_id: store.table("events")[row_id] for row_id in found[-_EVENT_ROWS:]}

    def _entitle(self) -> None:
        note = Cell("e why here  l logs  h history  u dumps", "dim")
        self.panel("#replicas").entitle(f"1 Replicas {len(self._replicas.shown)}", note)
        narrow = self.size.width < _WIDE
        flying = f"2 Requests in flight {len(self._requests.shown)}"
        self.panel("#requests").entitle(flying, Cell("v events", "dim") if narrow else None)
        self.panel("#events").entitle(
            f"3 Events {len(self._events.shown)}", Cell("v requests", "dim") if narrow else None
        )

    def _show_facts(self) -> None:
        row = self.store.row("deployments", self._deployment_id)
        if row is None:
            return
        lines = facts(row, self._rates.of(row), self.size.width or 80)
        self._facts.show(lines)
        panel = self.panel("#facts")
        panel.styles.height = 1 + len(lines)
        panel.entitle(f"{row['name']}: {row['model'] or row['engine']}")

    def actions(self) -> Sequence[Action]:
        row = self.store.row("deployments", self._deployment_id)
        return () if row is None else of_deployment(row, allowed_by(self.store, row))

    def subject(self) -> Any:
        return {
            "deployment": self.store.row("deployments", self._deployment_id),
            "replicas": list(self._own(self.store.table("replicas")).values()),
            "requests": list(self._own(self.store.table("requests")).values()),
        }

    async def action_explain(self) -> None:
        await self.console.open(PlacementView(self._deployment_id))

    async def action_logs(self) -> None:
        await self.console.open(EngineLogView(self._deployment_id))

    async def action_history(self) -> None:
        await self.console.open(HistoryView(self._label))

    def action_dumps(self) -> None:
        self.load(self._show_dumps(), name="dumps")

    async def _show_dumps(self) -> None:
        text = await dumps_text(self.admin, self._deployment_id)
        self.console.push_screen(TextDialog(f"Engines of {self._label} that hung", text))

    def action_other(self) -> None:
        self._events_first = not self._events_first
        self._arrange()
        (self._events if self._events_first else self._requests).focus()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        if event.table is self._replicas:
            await self.console.open(EngineLogView(self._deployment_id, event.row_id))
            return
        row = event.table.row(event.row_id)
        if row is not None:
            lines = [f"{name:<16}{or_missing(value)}" for name, value in row.items()]
            self.console.push_screen(TextDialog("In full", "\n".join(lines)))

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    def _replica_cells(self, _row_id: str, row: Row) -> list[Cell]:
        loading = row.get("load_percent")
        shown = state(row.get("state"))
        if row.get("state") == "starting" and loading is not None:
            shown = Cell(f"◐ load {percent(loading)}", "accent")
        return [
            Cell(or_missing(row.get("node"))),
            shown,
            Cell(count(row.get("requests_running"))),
            Cell(count(row.get("requests_waiting"))),
            Cell(percent(row.get("cache_used_percent"))),
            Cell(count(row.get("output_tokens_per_s"))),
            Cell(count(row.get("tokens_per_s")), "dim"),
            Cell(count(row.get("restarts")), "warn" if row.get("restarts") else "plain"),
            Cell(ago(row.get("since"), self.console.now())),
            Cell(str(len(row.get("gpus") or ())) if row.get("gpus") else MISSING),
            Cell(count(row.get("generation")), "dim"),
            Cell(or_missing(row.get("engine_version")), "dim"),
            Cell(str(row.get("reason", ""))),
            Cell(str(row.get("id", ""))[-12:], "dim"),
        ]

    def _request_cells(self, _row_id: str, row: Row) -> list[Cell]:
        phase = str(row.get("phase", ""))
        return [
            Cell(f"{row.get('tenant', '')}/{row.get('environment', '')}"),
            Cell(phase, "warn" if phase == "queued" else "plain"),
            Cell(ago(row.get("started_at"), self.console.now())),
            Cell(count(row.get("input_tokens"))),
            Cell(count(row.get("output_tokens"))),
            Cell(or_missing(row.get("node")), "dim"),
            Cell(str(row.get("key", "")), "dim"),
            Cell(or_missing(row.get("client")), "dim"),
        ]


def facts(row: Row, trend: Sequence[float | None], width: int) -> list[list[Cell]]:
    """How it stands and, where there is one, why; what it does; how it is set."""
    first = [Cell("  "), state(row.get("state")), Cell("  "), replicas(row), Cell(" replicas  ")]
    reason = str(row.get("reason") or "")
    tone: Tone = "plain" if row.get("state") == "ready" else "warn"
    taken = sum(cell_len(cell.text) for cell in first)
    if taken + cell_len(reason) <= width:
        told = [[*first, Cell(reason, tone)]]
    else:
        parts = [wrapped(each, max(20, width - 4)) for each in reason.splitlines()]
        told = [first, *([Cell(f"  {line}", tone)] for part in parts for line in part)]
    second = [
        Cell(f"  {count(row.get('requests_running'))} running  "),
        Cell(f"{waiting(row).text} waiting  ", waiting(row).tone),
        Cell(f"KV {percent(row.get('cache_used_percent'))}  "),
        Cell(f"{count(row.get('output_tokens_per_s'))} tok/s  "),
        Cell(f"first token {milliseconds(row.get('first_token_p95_ms'))} (p95)  "),
    ]
    room = max(0, width - sum(len(cell.text) for cell in second) - 2)
    second.append(Cell(spark(trend, min(room, _TREND_MINUTES)), "accent"))
    pins = ", ".join(row.get("pins") or ()) or "any node"
    idle = row.get("idle_s")
    third = [
        Cell(
            f"  {row.get('engine')}  {row.get('strategy')}  on {pins}  generation"
            f" {row.get('generation')}  unloads {'never' if idle is None else 'after '}"
            f"{'' if idle is None else duration(idle)}",
            "dim",
        )
    ]
    return [*told[:_REASON_LINES], second, third]


def _request_key(_row_id: str, row: Row, column: str) -> Any:
    names = {
        "age": "started_at",
        "input": "input_tokens",
        "output": "output_tokens",
    }
    return row.get(names.get(column, column))
