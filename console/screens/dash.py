"""1 Dash: the whole site at a glance: nodes, engines, tenants, and what wants attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widget import Widget

from appliance.wire.stream import HistorySeries, Topic
from console.actions import Action, plain
from console.cells import Cell, Column, Row, Tone
from console.client import AdminError
from console.screens.dash_map import NodeMap, Picture, node_map
from console.screens.dash_past import EVERY_S, QUERY, Past, figures_now
from console.screens.deployment_rates import DeploymentRates
from console.screens.places import alert_place
from console.store import Changes, Store
from console.view import View
from console.widgets.keeping import keep
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import count, milliseconds, percent, state

_MAP_LINES: Final = 4
_SEVERITY: Final = {"fatal": 0, "error": 1, "warning": 2, "info": 3}
_SEVERITY_WORDS: Final[dict[str, tuple[str, Tone]]] = {
    "fatal": ("FATAL", "bad"),
    "error": ("ERROR", "bad"),
    "warning": ("WARN", "warn"),
    "info": ("info", "plain"),
}
# From so many columns and lines on the last hour is drawn, too.
_PAST_COLUMNS: Final = 140
_PAST_LINES: Final = 40

_DEPLOYMENTS: Final = (
    Column("name", "MODEL", 20, grow=True),
    Column("replicas", "REP", 5, right=True),
    Column("state", "STATE", 10),
    Column("running", "RUN", 4, right=True),
    Column("queued", "WAIT", 4, right=True),
    Column("cache", "KV%", 4, right=True, priority=2),
    Column("rate", "TOK/s", 6, right=True),
    Column("first", "TTFT95", 6, right=True),
    Column("trend", "BY MINUTE", 10, priority=3, grow=True, most=60, newest=True),
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


class DashView(View):
    """Nodes, engines, tenants by their tokens, alerts."""

    DEFAULT_CSS: ClassVar[str] = """
    DashView #nodes { height: 5; }
    DashView #past { height: 9; display: none; }
    DashView #engines { height: 3fr; }
    DashView #below { height: 2fr; }
    DashView #tenants { width: 2fr; }
    DashView #attention { width: 3fr; margin: 0 0 0 1; }
    """

    BINDINGS: ClassVar[list[Any]] = [
        Binding("plus", "panel", "+1 to +5: to that part", key_display="+"),
        Binding("i", "first_steps", "The first steps of a site"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._choosing = False  # a plus was pressed: the next digit is a part's
        self._rates = DeploymentRates(self)
        self._map = NodeMap()
        self._past = Past()
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
        yield Panel("+5 The last hour", self._past, id="past")
        yield Panel("+2 Engines", self._engines, id="engines")
        with Horizontal(id="below"):
            yield Panel("+3 Tenants by tok/s", self._tenants, id="tenants")
            yield Panel("+4 Attention", self._alerts, id="attention")

    def on_mount(self) -> None:
        self.set_interval(EVERY_S, self._again)

    def home(self) -> Widget | None:
        return self._engines

    def topics(self) -> frozenset[Topic]:
        return frozenset({"nodes", "gpus", "deployments", "tenants", "alerts"})

    def shown(self) -> None:
        self.load(self._rates.read(self._engines.repaint), name="rates")
        self._read_again()

    def update(self, store: Store, changes: Changes) -> None:
        if changes.touches("nodes") or changes.touches("gpus"):
            self._show_nodes(store)
        moved = changes.touches("deployments") and self._rates.note(store)
        keep(self._engines, store, changes, "deployments")
        if moved:
            self._engines.repaint()
        keep(self._tenants, store, changes, "tenants")
        if changes.touches("alerts"):
            self._show_alerts(store)
        if changes.touches("site"):
            self._entitle(store)
        if self._past_shown:
            self._past.now(figures_now(store.site, store.table("gpus")))

    # The past.

    @property
    def _past_shown(self) -> bool:
        return self.size.width >= _PAST_COLUMNS and self.size.height >= _PAST_LINES

    def _again(self) -> None:
        if self.console.top is self and not self.console.paused and not self.console.locked:
            self._read_again()

    def _read_again(self) -> None:
        if self._past_shown:
            self.load(self._read_past(), name="past")

    async def _read_past(self) -> None:
        try:
            past = await self.admin.get("/v1/history", list[HistorySeries], QUERY)
        except AdminError as error:  # it is told where it would stand, not each minute anew
            self._past.fail(error.message)
            return
        self._past.take(past, self.console.now().timestamp())

    # What is there.

    def on_resize(self) -> None:
        panel = self.panel("#past")
        if panel.display != self._past_shown:
            panel.display = self._past_shown
            self._read_again()
        self._show_nodes(self.store)
        self._past.now(figures_now(self.store.site, self.store.table("gpus")))

    def _show_nodes(self, store: Store) -> None:
        nodes, gpus = store.table("nodes"), store.table("gpus")
        picture = node_map(nodes, gpus, self.size.width or 80, _MAP_LINES)
        if store.knows("nodes") and not nodes:
            text = "  No nodes yet. 2 opens the fleet; N there adds one."
            picture = Picture([[Cell(text, "dim")]], {})
        lines = picture.lines
        self._map.draw(picture)
        panel = self.panel("#nodes")
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
        self.panel("#engines").entitle(
            f"+2 Engines {len(store.table('deployments'))}", Cell(text, "plain")
        )

    def _show_alerts(self, store: Store) -> None:
        open_alerts = {
            row_id: row
            for row_id, row in store.table("alerts").items()
            if not row.get("acknowledged_at")
        }
        self._alerts.replace(open_alerts)
        self.panel("#attention").entitle(f"+4 Attention {len(open_alerts) or ''}".rstrip())

    def _deployment_cells(self, _row_id: str, row: Row) -> list[Cell]:
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
            self._rates.cell(row),
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
            await self._reveal(*alert_place(alert, self.store))
        else:
            await self._reveal("3" if event.table is self._engines else "4", event.row_id)

    @on(NodeMap.Opened)
    async def _node_opened(self, event: NodeMap.Opened) -> None:
        await self._reveal("2", event.node_id)

    @on(Past.Opened)
    async def _past_opened(self) -> None:
        from console.screens.deployment_history import HistoryView  # noqa: PLC0415 (then only)

        await self.console.open(HistoryView.of_site())

    async def _reveal(self, mode: str, part: str | None) -> None:
        await self.console.go(mode)
        top = self.console.top
        if top is not None and part is not None:
            top.reveal(part)

    def action_panel(self) -> None:
        self._choosing = True

    def on_key(self, event: events.Key) -> None:
        """Behind a plus a digit is a part of this view, not a mode."""
        if self._choosing and event.key != "plus":
            self._choosing = False
            parts: list[Widget] = [self._map, self._engines, self._tenants, self._alerts]
            parts += [self._past] if self._past_shown else []
            part = dict(zip("12345", parts, strict=False))
            if event.character in part:
                event.stop()
                event.prevent_default()
                part[event.character].focus()

    async def action_first_steps(self) -> None:
        from console.screens.first_run import FirstRunView  # noqa: PLC0415 (rarely needed)

        await self.console.open(FirstRunView())

    def reveal(self, part: str) -> None:
        if part == "alerts":
            self._alerts.focus()


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
