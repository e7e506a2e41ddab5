"""1 Dash: the whole site at a glance: nodes, engines, tenants, and what wants attention."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widget import Widget

from appliance.wire.stream import Topic
from console.actions import Action, plain
from console.cells import Cell, Column, Row, Tone
from console.modes import ALERTS_MODE
from console.store import Changes, Store
from console.view import View
from console.widgets.keeping import keep
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.widgets.spark import spark
from console.words import count, milliseconds, percent, state

_TREND: Final = 60
_MAP_LINES: Final = 4
_SEVERITY: Final = {"fatal": 0, "error": 1, "warning": 2, "info": 3}
_SEVERITY_WORDS: Final[dict[str, tuple[str, Tone]]] = {
    "fatal": ("FATAL", "bad"),
    "error": ("ERROR", "bad"),
    "warning": ("WARN", "warn"),
    "info": ("info", "plain"),
}
# A GPU this close to where it slows itself down is called hot, °C.
_HOT: Final = 3

_DEPLOYMENTS: Final = (
    Column("name", "MODEL", 14, grow=True),
    Column("replicas", "REP", 5, right=True),
    Column("state", "STATE", 10),
    Column("running", "RUN", 4, right=True),
    Column("queued", "WAIT", 4, right=True),
    Column("cache", "KV%", 4, right=True, priority=2),
    Column("rate", "TOK/s", 6, right=True),
    Column("first", "TTFT95", 6, right=True),
    Column("trend", "TREND", 10, priority=3),
)
_TENANTS: Final = (
    Column("name", "TENANT", 10, grow=True),
    Column("rate", "TOK/s", 6, right=True),
    Column("limit", "LIMIT", 5, right=True),
)
_ALERTS: Final = (
    Column("severity", "", 6),
    Column("text", "ATTENTION", 20, grow=True),
)


def gpu_mark(gpu: Row) -> Cell:
    """0–9 tenths of its use, ! hot or unwell, x down, - not known."""
    if gpu.get("stale") or gpu.get("state") in ("gone", "failed"):
        return Cell("x", "bad")
    hot_at, at = gpu.get("temperature_slowdown"), gpu.get("temperature")
    hot = hot_at is not None and at is not None and at >= hot_at - _HOT
    if hot or gpu.get("state") == "degraded":
        return Cell("!", "warn")
    used = gpu.get("utilisation")
    if used is None:
        return Cell("-", "dim")
    # One tone: each change of it costs 35 bytes on the line, and the digit says it all.
    return Cell(str(min(9, int(used) // 10)))


def worst_mark(marks: Sequence[Cell], node: Row) -> Cell:
    """One sign for a node: its worst GPU; a node without any shows only whether it is there."""
    if node.get("state") in ("unreachable", "failed"):
        return Cell("x", "bad")
    rank = {"x": 100, "!": 50, "-": -1}  # before the tenths of its use
    if not marks:
        return Cell("·", "dim")
    return max(
        marks, key=lambda mark: rank.get(mark.text, int(mark.text) if mark.text.isdigit() else 0)
    )


def node_map(
    nodes: Mapping[str, Row], gpus: Mapping[str, Row], width: int, lines: int
) -> list[list[Cell]]:
    """A line a node while there is room, else every GPU in groups, else a sign a node, in tens."""
    marks: dict[str, list[tuple[int, Cell]]] = {}
    for gpu in gpus.values():
        marks.setdefault(gpu.get("node", ""), []).append((gpu.get("index", 0), gpu_mark(gpu)))
    named = sorted(nodes.values(), key=lambda node: str(node.get("name")))
    of = {
        name: [mark for _, mark in sorted(each, key=lambda at: at[0])]
        for name, each in marks.items()
    }
    if len(named) <= lines:
        return [_node_line(node, of.get(str(node.get("name")), [])) for node in named]
    every = [of.get(str(node.get("name")), []) for node in named]
    groups = [marks or [worst_mark(marks, node)] for marks, node in zip(every, named, strict=True)]
    wide = max(len(group) for group in groups) + 1
    in_line = max(1, width // wide)
    if -(-len(groups) // in_line) <= lines:
        return [
            [
                cell
                for group in groups[at : at + in_line]
                for cell in (*group, Cell(" " * (wide - len(group))))
            ]
            for at in range(0, len(groups), in_line)
        ]
    row: list[Cell] = []
    rows = [row]
    in_row = max(10, (width - 1) // 11 * 10)
    for at, node in enumerate(named):
        if at and at % in_row == 0:
            row = []
            rows.append(row)
        elif at and at % 10 == 0:
            row.append(Cell(" "))
        row.append(worst_mark(of.get(str(node.get("name")), []), node))
    return rows


def _node_line(node: Row, marks: Sequence[Cell]) -> list[Cell]:
    cells = [Cell(f"{node.get('name', '')!s:<16.16} "), state(str(node.get("state", "")))]
    cells.append(Cell(" " * max(1, 15 - len(cells[-1].text))))
    cells += [part for mark in marks for part in (mark, Cell(" "))]
    if not marks:
        cells.append(Cell("no GPUs", "dim"))
    return cells


class DashView(View):
    """Nodes, engines, tenants by their tokens, alerts."""

    DEFAULT_CSS: ClassVar[str] = """
    DashView #nodes { height: 5; }
    DashView #engines { height: 3fr; }
    DashView #below { height: 2fr; }
    DashView #tenants { width: 2fr; }
    DashView #attention { width: 3fr; margin: 0 0 0 1; }
    """

    BINDINGS: ClassVar[list[Any]] = [
        Binding("plus", "panel", "+1 to +4: to that part", key_display="+"),
        Binding("i", "first_steps", "The first steps of a site"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._choosing = False  # a plus was pressed: the next digit is a part's
        self._trends: dict[str, deque[float | None]] = {}
        self._map = Lines()
        self._map.can_focus = True
        self._engines = LiveTable(
            _DEPLOYMENTS,
            self._deployment_cells,
            sort_key=_deployment_key,
            sort_by="rate",
            descending=True,
            empty="No deployments yet. i: the first steps, one by one. 3: the models.",
        )
        self._tenants = LiveTable(
            _TENANTS,
            _tenant_cells,
            sort_key=_tenant_key,
            sort_by="rate",
            descending=True,
            empty="No tenants yet. 4 makes one.",
        )
        self._alerts = LiveTable(
            _ALERTS,
            _alert_cells,
            sort_key=_alert_key,
            sort_by="severity",
            empty="Nothing wants attention.",
        )

    def compose(self) -> ComposeResult:
        yield Panel("+1 Nodes", self._map, id="nodes")
        yield Panel("+2 Engines", self._engines, id="engines")
        with Horizontal(id="below"):
            yield Panel("+3 Tenants by tok/s", self._tenants, id="tenants")
            yield Panel("+4 Attention", self._alerts, id="attention")

    def home(self) -> Widget | None:
        return self._engines

    def topics(self) -> frozenset[Topic]:
        return frozenset({"nodes", "gpus", "deployments", "tenants", "alerts"})

    def update(self, store: Store, changes: Changes) -> None:
        if changes.touches("nodes") or changes.touches("gpus"):
            self._show_nodes(store)
        if changes.touches("deployments"):
            self._remember(store.table("deployments"))
        keep(self._engines, store, changes, "deployments")
        keep(self._tenants, store, changes, "tenants")
        if changes.touches("alerts"):
            self._show_alerts(store)
        if changes.touches("site"):
            self._entitle(store)

    def on_resize(self) -> None:
        self._show_nodes(self.store)

    def _show_nodes(self, store: Store) -> None:
        nodes, gpus = store.table("nodes"), store.table("gpus")
        lines = node_map(nodes, gpus, self.size.width or 80, _MAP_LINES)
        if store.knows("nodes") and not nodes:
            lines = [[Cell("  No nodes yet. 2 opens the fleet; N there adds one.", "dim")]]
        self._map.show(lines)
        panel = self.query_one("#nodes", Panel)
        height = min(_MAP_LINES, max(1, len(lines))) + 1
        if panel.styles.height is None or panel.styles.height.value != height:
            panel.styles.height = height
        down = sum(node.get("state") in ("unreachable", "failed") for node in nodes.values())
        note = Cell(f"{down} down", "bad") if down else Cell("")
        each = "GPUs" if sum(map(len, lines)) >= len(gpus) else "worst GPU of each"
        title = f"+1 Nodes {len(nodes)}: {each}, 0-9 = x10%, ! hot or unwell, x down"
        panel.entitle(title, note)

    def _entitle(self, store: Store) -> None:
        site = store.site or {}
        total = count(site.get("output_tokens_per_s"))
        queued = site.get("requests_queued") or 0
        text = f"{total} tok/s  {count(site.get('requests_per_s'))} req/s  {queued} waiting"
        self.query_one("#engines", Panel).entitle(
            f"+2 Engines {len(store.table('deployments'))}", Cell(text, "plain")
        )

    def _show_alerts(self, store: Store) -> None:
        open_alerts = {
            row_id: row
            for row_id, row in store.table("alerts").items()
            if not row.get("acknowledged_at")
        }
        self._alerts.replace(open_alerts)
        self.query_one("#attention", Panel).entitle(
            f"+4 Attention {len(open_alerts) or ''}".rstrip()
        )

    def _remember(self, rows: Mapping[str, Row]) -> None:
        for row_id, row in rows.items():
            past = self._trends.setdefault(row_id, deque(maxlen=_TREND))
            past.append(row.get("output_tokens_per_s"))
        for row_id in [each for each in self._trends if each not in rows]:
            del self._trends[row_id]

    def _deployment_cells(self, row_id: str, row: Row) -> list[Cell]:
        running, queued = row.get("requests_running"), row.get("requests_queued")
        wanted, ready = row.get("replicas_wanted", 0), row.get("replicas_ready", 0)
        return [
            Cell(str(row.get("name", ""))),
            Cell(f"{ready}/{wanted}", "plain" if ready >= wanted else "warn"),
            state(row.get("state")),
            Cell(count(running)),
            Cell(count(queued), "warn" if queued else "plain"),
            Cell(percent(row.get("cache_used_percent"))),
            Cell(count(row.get("output_tokens_per_s"))),
            Cell(milliseconds(row.get("first_token_p95_ms"))),
            Cell(spark(list(self._trends.get(row_id, ())), 10), "accent"),
        ]

    def actions(self) -> Sequence[Action]:
        row_id = self._alerts.current
        if not self._alerts.has_focus or row_id is None:
            return ()
        return (
            Action(
                key="A",
                title="Acknowledge",
                role="operator",
                argv=plain("alert", "acknowledge", row_id),
                done="Acknowledged.",
            ),
        )

    def subject(self) -> Any:
        return {topic: list(self.store.table(topic).values()) for topic in sorted(self.topics())}

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    def on_descendant_focus(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        if event.table is self._alerts:
            alert = self.store.row("alerts", event.row_id) or {}
            mode, part = alert_place(alert)
        else:
            mode, part = ("3" if event.table is self._engines else "4"), event.row_id
        await self.console.go(mode)
        top = self.console.top
        if top is not None:
            top.reveal(part)

    def action_panel(self) -> None:
        self._choosing = True

    def on_key(self, event: events.Key) -> None:
        """Behind a plus a digit is a part of this view, not a mode."""
        if self._choosing and event.key != "plus":
            self._choosing = False
            part = {"1": self._map, "2": self._engines, "3": self._tenants, "4": self._alerts}
            if event.character in part:
                event.stop()
                event.prevent_default()
                part[event.character].focus()
                return
        if event.key == "enter" and self._map.has_focus:
            event.stop()
            self.console.call_later(self.console.go, "2")

    async def action_first_steps(self) -> None:
        from console.screens.first_run import FirstRunView  # noqa: PLC0415 (rarely needed)

        await self.console.open(FirstRunView())

    def reveal(self, part: str) -> None:
        if part == "alerts":
            self._alerts.focus()


# What an alert is about -> the digit of the mode that shows it.
_PLACES: Final = {
    "node": "2",
    "gpu": "2",
    "deployment": "3",
    "replica": "3",
    "model": "3",
    "tenant": "4",
    "key": "4",
    "sync": "5",
    "entitlement": "5",
}


def alert_place(alert: Row) -> tuple[str, str]:
    """The mode where an alert's subject is seen, and that subject there."""
    mode = _PLACES.get(str(alert.get("subject", "")))
    if mode is None:
        return ALERTS_MODE, "alerts"
    return mode, str(alert.get("ref") or "")


def _deployment_key(_row_id: str, row: Row, column: str) -> Any:
    if column == "replicas":
        return row.get("replicas_ready")
    names = {
        "running": "requests_running",
        "queued": "requests_queued",
        "cache": "cache_used_percent",
        "rate": "output_tokens_per_s",
        "trend": "output_tokens_per_s",
        "first": "first_token_p95_ms",
    }
    return row.get(names.get(column, column))


def _tenant_cells(_row_id: str, row: Row) -> list[Cell]:
    limit = row.get("limit_percent")
    tone = (
        "bad" if limit is not None and limit >= 100 else "warn" if (limit or 0) >= 80 else "plain"
    )
    return [
        Cell(str(row.get("name", ""))),
        Cell(count(row.get("output_tokens_per_s"))),
        Cell(percent(limit), tone),  # type: ignore[arg-type]  # one of the tones
    ]


def _tenant_key(_row_id: str, row: Row, column: str) -> Any:
    names = {"rate": "output_tokens_per_s", "limit": "limit_percent"}
    return row.get(names.get(column, column))


def _alert_cells(_row_id: str, row: Row) -> list[Cell]:
    severity = str(row.get("severity", ""))
    word, tone = _SEVERITY_WORDS.get(severity, (severity, "plain"))
    return [Cell(word, tone), Cell(str(row.get("text", "")))]


def _alert_key(row_id: str, row: Row, _column: str) -> Any:
    return (_SEVERITY.get(str(row.get("severity")), 9), row_id)
