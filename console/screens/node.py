"""One node: its GPUs, its health part by part, its faults, what runs there, and its last hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widget import Widget

from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row, Tone
from console.screens.fleet import health_tone, heat_tone, memory_cell, notice_or_reason
from console.screens.fleet_actions import of_node
from console.screens.gpu import GpuView
from console.store import Changes, Store
from console.view import View
from console.widgets.line import wrapped
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import ago, count, glyph, or_missing, percent, size, state

_GPUS: Final = (
    Column("index", "GPU", 4, right=True),
    Column("state", "STATE", 10),
    Column("used", "UTIL", 4, right=True),
    Column("memory", "MEM%", 4, right=True),
    Column("held", "HELD", 6, right=True, priority=3),
    Column("heat", "°C", 3, right=True),
    Column("power", "W", 4, right=True, priority=2),
    Column("clock", "MHz", 5, right=True, priority=4),
    Column("score", "SCORE", 5, right=True),
    Column("processes", "PROCS", 5, right=True, priority=2),
    Column("replicas", "REPLICA OF", 14, grow=True),
    Column("name", "MODEL", 22, priority=5),
)
_REPLICAS: Final = (
    Column("deployment", "DEPLOYMENT", 11, grow=True),
    Column("state", "STATE", 11),
    Column("running", "RUN", 4, right=True),
    Column("rate", "TOK/s", 6, right=True, priority=2),
    Column("cache", "KV%", 4, right=True, priority=3),
    Column("gpus", "GPUS", 6, priority=2),
    Column("restarts", "RESTARTS", 8, right=True, priority=3),
    Column("pid", "PID", 8, right=True, priority=4),
)
_WHY_LINES: Final = 4


class NodeView(View):
    """`node_id` is the row of the topic `nodes`."""

    DEFAULT_CSS: ClassVar[str] = """
    NodeView #gpus { height: 3fr; }
    NodeView #below { height: 2fr; }
    NodeView #replicas { width: 1fr; }
    NodeView #health { width: 1fr; margin: 0 0 0 1; }
    """
    BINDINGS: ClassVar[list[Any]] = [Binding("h", "past", "Its last hour")]

    def __init__(self, node_id: str) -> None:
        super().__init__()
        self._node_id = node_id
        self._gpus = LiveTable(
            _GPUS,
            self._gpu_cells,
            sort_key=_gpu_key,
            sort_by="index",
            empty="This node tells of no GPUs.",
        )
        self._replicas = LiveTable(
            _REPLICAS, self._replica_cells, sort_by="deployment", empty="Nothing runs here."
        )
        self._health = Lines()
        self._facts = Lines()
        self._on_gpu: dict[str, list[str]] = {}  # UUID -> deployments

    def compose(self) -> ComposeResult:
        self._facts.styles.height = 2
        yield self._facts
        yield Panel("1 GPUs", self._gpus, id="gpus")
        with Horizontal(id="below"):
            yield Panel("2 Replicas", self._replicas, id="replicas")
            yield Panel("Health", self._health, id="health")

    def home(self) -> Widget | None:
        return self._gpus

    def topics(self) -> frozenset[Topic]:
        return frozenset({"nodes", "gpus", "replicas", "deployments"})

    def update(self, store: Store, changes: Changes) -> None:
        row = store.row("nodes", self._node_id)
        if row is None:
            self._facts.show([[Cell("This node is not in the fleet any more. Esc goes back.")]])
            return
        name = str(row.get("name"))
        self.title = name
        mine = {
            row_id: replica
            for row_id, replica in store.table("replicas").items()
            if replica.get("node") == name
        }
        self._on_gpu = {}
        for replica in mine.values():
            for uuid in replica.get("gpus") or ():
                self._on_gpu.setdefault(uuid, []).append(str(replica.get("deployment")))
        self._show(self._replicas, mine)
        gpus = {
            uuid: gpu
            for uuid, gpu in store.table("gpus").items()
            if gpu.get("node_id") == self._node_id
        }
        self._show(self._gpus, gpus)
        if changes.touches("nodes"):
            self._show_facts(row)
            self._show_health(row)
        self.panel("#gpus").entitle(f"1 GPUs {len(gpus)}")
        self.panel("#replicas").entitle(f"2 Replicas {len(mine)}")

    @staticmethod
    def _show(table: LiveTable, rows: dict[str, Row]) -> None:
        gone = [row_id for row_id in table.shown if row_id not in rows]
        table.patch(rows, gone)

    def _show_facts(self, row: Row) -> None:
        driver = row.get("driver") or {}
        now = self.console.now()
        first = [
            Cell("  "),
            state(row.get("state")),
            Cell(f"  seen {ago(row.get('last_seen_at'), now)} ago"),
            Cell(f"  {count(row.get('cores'))} cores  {size(row.get('memory_bytes'))}"),
            Cell(f"  {row.get('region', '')}  agent {or_missing(row.get('agent_version'))}"),
            Cell(f"  driver {or_missing(driver.get('version'))}", "plain"),
        ]
        engines = row.get("engine_versions") or {}
        told = ", ".join(f"{name} {version}" for name, version in engines.items())
        why = notice_or_reason(row)
        problem = str(driver.get("problem") or "")
        room = max(20, (self.size.width or 80) - 4)
        tone: Tone = "bad" if problem else "dim"
        parts = wrapped(f"{problem or why}  {told}", room)[:_WHY_LINES]
        lines = [first, *([Cell(f"  {part}", tone)] for part in parts)]
        self._facts.styles.height = len(lines)
        self._facts.show(lines)

    def _show_health(self, row: Row) -> None:
        health = row.get("health") or {}
        lines: list[list[Cell]] = []
        for fault in health.get("faults") or ():
            lines.append([glyph(fault.get("severity")), Cell(f" {fault.get('code')} ", "bad")])
            text = f"{fault.get('message', '')} {fault.get('next_step', '')}"
            room = max(20, self._health.size.width - 4)
            lines += [[Cell(f"    {part}", "dim")] for part in wrapped(text, room)]
        for part in health.get("parts") or ():
            score = part.get("score")
            lines.append(
                [
                    Cell(f"  {part.get('name', ''):<12}"),
                    Cell(f"{count(score):>4} ", health_tone(score)),
                    Cell(str(part.get("reason") or ""), "dim"),
                ]
            )
        if not lines:
            lines.append([Cell("  Its agent has not told yet.", "dim")])
        self._health.show(lines)
        score = health.get("score")
        panel = self.panel("#health")
        panel.entitle(
            f"Health {count(score)}", Cell(str(health.get("state") or ""), health_tone(score))
        )

    def actions(self) -> Sequence[Action]:
        row = self.store.row("nodes", self._node_id)
        if row is None:
            return ()
        store = self.store
        return of_node(row, store.table("replicas").values(), store.table("deployments").values())

    def subject(self) -> Any:
        return {
            "node": self.store.row("nodes", self._node_id),
            "gpus": [self._gpus.row(row_id) for row_id in self._gpus.shown],
            "replicas": [self._replicas.row(row_id) for row_id in self._replicas.shown],
        }

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        if event.table is self._gpus:
            await self.console.open(GpuView(event.row_id))
            return
        row = self._replicas.row(event.row_id) or {}
        deployments = self.store.table("deployments").items()
        for row_id, deployment in deployments:
            if deployment.get("name") == row.get("deployment"):
                from console.screens.deployment import DeploymentView  # noqa: PLC0415 (only now)

                await self.console.open(DeploymentView(row_id))
                return

    async def action_past(self) -> None:
        uuid = self._gpus.current
        if uuid is None:
            self.notify("This node tells of no GPUs.")
            return
        await self.console.open(GpuView(uuid))

    def _gpu_cells(self, row_id: str, row: Row) -> list[Cell]:
        return [
            Cell(count(row.get("index"))),
            state("unreachable" if row.get("stale") else row.get("state")),
            Cell(percent(row.get("utilisation"))),
            memory_cell(row),
            Cell(size(row.get("memory_used_bytes"))),
            Cell(count(row.get("temperature")), heat_tone([row])),
            Cell(count(row.get("power"))),
            Cell(count(row.get("sm_clock"))),
            Cell(count(row.get("score")), health_tone(row.get("score"))),
            Cell(count(len(row.get("processes") or ()))),
            Cell(", ".join(self._on_gpu.get(row_id, [])) or "–"),
            Cell(str(row.get("name", ""))),
        ]

    def _replica_cells(self, _row_id: str, row: Row) -> list[Cell]:
        indices = {uuid: str(gpu.get("index")) for uuid, gpu in self.store.table("gpus").items()}
        return [
            Cell(str(row.get("deployment", ""))),
            state(row.get("state")),
            Cell(count(row.get("requests_running"))),
            Cell(count(row.get("output_tokens_per_s"))),
            Cell(percent(row.get("cache_used_percent"))),
            Cell(",".join(indices.get(uuid, "?") for uuid in row.get("gpus") or ()) or "–"),
            Cell(count(row.get("restarts")), "warn" if row.get("restarts") else "plain"),
            Cell("–" if row.get("pid") is None else str(row["pid"])),
        ]


def _gpu_key(_row_id: str, row: Row, column: str) -> Any:
    names = {
        "used": "utilisation",
        "memory": "memory_used_bytes",
        "held": "memory_used_bytes",
        "heat": "temperature",
        "clock": "sm_clock",
    }
    value = row.get(names.get(column, column))
    return len(value) if isinstance(value, list) else value
