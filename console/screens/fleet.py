"""2 Fleet: nodes, how they are, and what runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding

from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row, Tone
from console.screens.fleet_actions import gpus_of, memory_share, new_token, of_node, worst
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import MISSING, ago, count, or_missing, percent, size, state

_COLUMNS: Final = (
    Column("name", "NODE", 12, grow=True),
    Column("state", "STATE", 13),
    Column("health", "HEALTH", 6, right=True),
    Column("gpus", "GPUS", 4, right=True),
    Column("used", "UTIL", 4, right=True, priority=2),
    Column("heat", "°C", 3, right=True),
    Column("memory", "MEM%", 4, right=True, priority=2),
    Column("replicas", "REPL", 5, right=True),
    Column("running", "RUN", 4, right=True, priority=3),
    Column("seen", "SEEN", 6, right=True),
    Column("region", "REGION", 10, priority=4),
    Column("agent", "AGENT", 7, priority=5),
    Column("driver", "DRIVER", 11, priority=6),
    Column("ram", "RAM", 5, right=True, priority=7),
    Column("reason", "REASON", 30, priority=8),
)


class FleetView(View):
    """All nodes. Enter opens one."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("a", "gpus", "All GPUs"),
        Binding("t", "tokens", "Join tokens"),
        Binding("r", "regions", "Regions"),
        Binding("b", "bursts", "Machines lent from clouds"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(
            _COLUMNS,
            self._cells,
            sort_key=self._key,
            sort_by="name",
            empty="No nodes yet. N makes a token and shows what to type on the machine.",
        )
        self._gpus: dict[str, list[Row]] = {}
        self._replicas: dict[str, list[Row]] = {}
        self._wanted: str | None = None

    def compose(self) -> ComposeResult:
        yield Panel("Nodes", self._table, id="nodes")

    def topics(self) -> frozenset[Topic]:
        return frozenset({"nodes", "gpus", "replicas", "deployments"})

    def update(self, store: Store, changes: Changes) -> None:
        nodes = store.table("nodes")
        if changes.touches("gpus"):
            self._gpus = {}
            for gpu in store.table("gpus").values():
                self._gpus.setdefault(str(gpu.get("node")), []).append(gpu)
        if changes.touches("replicas"):
            self._replicas = {}
            for replica in store.table("replicas").values():
                self._replicas.setdefault(str(replica.get("node")), []).append(replica)
        if "nodes" in changes.whole:
            self._table.replace(nodes)
        else:
            # Its figures are those of its GPUs and replicas: every row may read differently.
            self._table.patch(nodes, changes.ended("nodes"))
        if self._wanted in nodes:
            self._table.select(str(self._wanted))
            self._wanted = None
        down = sum(row.get("state") in ("unreachable", "failed") for row in nodes.values())
        gpus = sum(len(each) for each in self._gpus.values())
        note = Cell(f"{down} down", "bad") if down else Cell(f"{gpus} GPUs", "plain")
        self.panel().entitle(f"Nodes {len(nodes)}", note)

    def reveal(self, part: str) -> None:
        self._wanted = part
        self._table.select(part)

    def actions(self) -> Sequence[Action]:
        row = self._selected()
        if row is None:
            return (new_token(),)
        store = self.store
        of_row = of_node(row, store.table("replicas").values(), store.table("deployments").values())
        return (*of_row, new_token())

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    def _selected(self) -> Row | None:
        return self._table.row(self._table.current) if self._table.current else None

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        from console.screens.node import NodeView  # noqa: PLC0415 (only when one is opened)

        await self.console.open(NodeView(event.row_id))

    async def action_gpus(self) -> None:
        from console.screens.gpu import GpusView  # noqa: PLC0415 (only when it is opened)

        await self.console.open(GpusView())

    async def action_tokens(self) -> None:
        from console.screens.joining import TokensView  # noqa: PLC0415 (only when it is opened)

        await self.console.open(TokensView())

    async def action_regions(self) -> None:
        from console.screens.regions import RegionsView  # noqa: PLC0415 (only when it is opened)

        await self.console.open(RegionsView())

    async def action_bursts(self) -> None:
        from console.screens.bursts import BurstsView  # noqa: PLC0415 (only when it is opened)

        await self.console.open(BurstsView())

    def _cells(self, _row_id: str, row: Row) -> list[Cell]:
        name = str(row.get("name", ""))
        gpus = gpus_of(name, self._gpus.get(name, ()))
        replicas = self._replicas.get(name, [])
        ready = sum(each.get("state") == "ready" for each in replicas)
        health = row.get("health") or {}
        shares = [share for gpu in gpus if (share := memory_share(gpu)) is not None]
        well = [gpu for gpu in gpus if gpu.get("state") not in ("gone", "failed")]
        return [
            Cell(name),
            state(row.get("state")),
            Cell(count(health.get("score")), health_tone(health.get("score"))),
            Cell(_gpu_count(gpus, well, row), "plain" if len(well) == len(gpus) else "bad"),
            Cell(worst(gpus, "utilisation")),
            Cell(worst(gpus, "temperature"), heat_tone(gpus)),
            Cell(count(max(shares)) if shares else MISSING),
            Cell(f"{ready}/{len(replicas)}", "plain" if ready == len(replicas) else "warn"),
            Cell(count(sum(each.get("requests_running") or 0 for each in replicas))),
            Cell(ago(row.get("last_seen_at"), self.console.now())),
            Cell(str(row.get("region", ""))),
            Cell(or_missing(row.get("agent_version"))),
            Cell(or_missing((row.get("driver") or {}).get("version"))),
            Cell(size(row.get("memory_bytes"))),
            Cell(notice_or_reason(row), "dim"),
        ]

    def _key(self, _row_id: str, row: Row, column: str) -> Any:
        gpus = self._gpus.get(str(row.get("name")), [])
        if column in ("used", "heat"):
            field = "utilisation" if column == "used" else "temperature"
            return max((gpu[field] for gpu in gpus if gpu.get(field) is not None), default=None)
        if column == "memory":
            return max((memory_share(gpu) or 0 for gpu in gpus), default=None)
        if column == "health":
            return (row.get("health") or {}).get("score")
        if column in ("gpus", "replicas", "running"):
            return len(gpus if column == "gpus" else self._replicas.get(str(row.get("name")), []))
        names = {"seen": "last_seen_at", "agent": "agent_version", "ram": "memory_bytes"}
        value = row.get(names.get(column, column))
        return str(value) if isinstance(value, dict) else value


def _gpu_count(gpus: Sequence[Row], well: Sequence[Row], row: Row) -> str:
    if not gpus:
        return count(len(row.get("gpus") or ()))
    return str(len(gpus)) if len(well) == len(gpus) else f"{len(well)}/{len(gpus)}"


def health_tone(score: int | None) -> Tone:
    if score is None:
        return "dim"
    return "good" if score >= 80 else "warn" if score >= 50 else "bad"


def heat_tone(gpus: Sequence[Row]) -> Tone:
    """By how near the hottest is to where it slows itself down."""
    left = [
        gpu["temperature_slowdown"] - gpu["temperature"]
        for gpu in gpus
        if gpu.get("temperature_slowdown") is not None and gpu.get("temperature") is not None
    ]
    return "plain" if not left or min(left) > 8 else "warn" if min(left) > 3 else "bad"


def notice_or_reason(row: Row) -> str:
    """Why a node is as it is."""
    notice = row.get("notice")
    if notice:
        return f"gone at {notice.get('at')} ({notice.get('source')})"
    return or_missing(row.get("reason") or row.get("wish_reason"))


def memory_cell(gpu: Row) -> Cell:
    share = memory_share(gpu)
    return Cell(percent(share), "warn" if share is not None and share >= 95 else "plain")
