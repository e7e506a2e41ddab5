"""The running appliance: its own figures, what versions run, and tasks of this console."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.timer import Timer

from appliance.wire.admin import SiteStatus
from appliance.wire.fleet import Node
from console.cells import Cell, Column, Row
from console.screens.ops_words import (
    Figures,
    Line,
    diagnosis,
    diagnosis_lines,
    field,
    parse_figures,
    versions,
)
from console.tasks import Task
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import MISSING, clock_time, duration, or_missing, state

_EVERY_S: Final = 2.0
_VERSIONS: Final = (
    Column("name", "NODE", 14, grow=True),
    Column("state", "STATE", 13),
    Column("agent", "AGENT", 12),
    Column("engines", "ENGINES", 28, priority=2),
    Column("driver", "DRIVER", 12, priority=3),
)
_TASKS: Final = (
    Column("state", "STATE", 10),
    Column("title", "TASK", 14),
    Column("twin", "COMMAND", 20, grow=True),
    Column("began", "BEGAN", 8),
    Column("took", "TOOK", 7, right=True),
)


class DiagnosticsView(View):
    """Figures of /metrics, every two seconds while they are looked at."""

    title = "Diagnostics"

    def __init__(self) -> None:
        super().__init__()
        self._lines = Lines()
        self._now: Figures = {}
        self._read_at: float | None = None
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Panel("Diagnostics", self._lines, id="diagnostics")

    def on_mount(self) -> None:
        self._timer = self.set_interval(_EVERY_S, self._again)

    def shown(self) -> None:
        self.load(self._read())

    def subject(self) -> Any:
        return dict(self._now)

    def _again(self) -> None:
        """Not while the appliance is away: the last line of the screen says so already."""
        console = self.console
        looked_at = self.display and console.top is self and not console.locked
        if looked_at and not console.paused and console.trouble is None:
            self.load(self._read())

    async def _read(self) -> None:
        text = [line.decode() async for line in self.admin.lines("/metrics")]
        now, at = parse_figures("\n".join(text)), self.console.monotonic_s()
        apart_s = 0.0 if self._read_at is None else at - self._read_at
        self._lines.show(diagnosis_lines(now, self._now, apart_s))
        self._now, self._read_at = now, at
        verdict, told = diagnosis(now)
        self.panel().entitle("Diagnostics", Cell(told, verdict.tone))


class VersionView(View):
    """What runs where, and how a newer version comes."""

    DEFAULT_CSS: ClassVar[str] = "VersionView #upgrade { height: 10; }"
    title = "Versions"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(_VERSIONS, _version_cells, sort_by="name", empty="No nodes yet.")
        self._told = Lines()

    def compose(self) -> ComposeResult:
        yield Panel("Versions", self._table, id="versions")
        yield Panel("A newer version", self._told, id="upgrade")

    def shown(self) -> None:
        self.load(self._read())

    async def _read(self) -> None:
        status = await self.admin.get("/v1/status", SiteStatus)
        self._table.replace({node.id: _version_row(node) for node in status.nodes})
        verdict, told = versions(status.version, status.nodes)
        self.panel("#versions").entitle(f"Version {status.version}", verdict)
        self._told.show(upgrade_lines(status, told, self.console.size.width))

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]


class TasksView(View):
    """Slow actions of this console, at work or ended, with what they said."""

    DEFAULT_CSS: ClassVar[str] = "TasksView #said { height: 9; }"
    title = "Tasks"

    def __init__(self) -> None:
        super().__init__()
        empty = "Nothing slow was done here yet: backups, bundles, imports show up."
        self._table = LiveTable(_TASKS, self._cells, sort_by="", empty=empty)
        self._said = Lines()
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Panel("Tasks", self._table, id="list")
        yield Panel("What it said", self._said, id="said")

    def on_mount(self) -> None:
        self._timer = self.set_interval(1.0, self._again)

    def shown(self) -> None:
        self._show()

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    def _again(self) -> None:
        if self.display and self.console.top is self and self.console.tasks.running:
            self._show()

    def _show(self) -> None:
        tasks, now = self.console.tasks.all, self.console.now()
        self._table.replace(
            {f"{len(tasks) - at:05}": _task_row(t, now) for at, t in enumerate(tasks)}
        )
        self._tell()

    def _tell(self) -> None:
        row = self._table.row(self._table.current) if self._table.current else None
        if row is None:
            self._said.show([])
            return
        room = max(1, self._said.size.height - 1)
        lines: list[Line] = field("result", row["result"], self.console.size.width)
        lines += [[Cell(f" {line}", "dim")] for line in row["lines"][-room:]]
        self._said.show(lines)

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self._tell()

    def _cells(self, _row_id: str, row: Row) -> Sequence[Cell]:
        return (
            state(row["state"]),
            Cell(row["title"]),
            Cell(row["twin"], "dim"),
            Cell(clock_time(row["began"])),
            Cell(row["took"]),
        )


def upgrade_lines(status: SiteStatus, told: str, width: int) -> list[Line]:
    """What there is to say of upgrades: the product brings none by itself."""
    return [
        *field("runs", f"{told}, since {status.started_at[:19].replace('T', ' ')} UTC", width),
        *field(
            "upgrade",
            "Nothing is fetched by itself. Make a backup, bring the new release onto this host,"
            " install it beside the old one, then start the service anew: its databases are"
            " brought to the new schema at that start.",
            width,
        ),
        *field(
            "way back",
            "An older version refuses databases of a newer one. Restore the backup that was made"
            " before, with the version that made it.",
            width,
        ),
        *field("nodes", "Install and start the agent of each node after the appliance.", width),
    ]


def _version_row(node: Node) -> Row:
    return {
        "name": node.name,
        "state": node.state,
        "agent_version": node.agent_version,
        "engines": [f"{name} {version}" for name, version in node.engine_versions.items()]
        or node.engines,
        "driver": None if node.driver is None else node.driver.version,
        "seen": node.last_seen_at,
    }


def _version_cells(_row_id: str, row: Row) -> Sequence[Cell]:
    return (
        Cell(row["name"]),
        state(row["state"]),
        Cell(or_missing(row["agent_version"])),
        Cell(", ".join(row["engines"]) or MISSING),
        Cell(or_missing(row["driver"]), "dim"),
    )


def _task_row(task: Task, now: datetime) -> Row:
    ended = task.ended_at or now
    outcome = task.outcome
    result = "It goes on, also when you look elsewhere." if outcome is None else "Done."
    if outcome is not None and not outcome.ok:
        result = outcome.sentence
    return {
        "state": task.state,
        "title": task.title,
        "twin": task.twin,
        "began": task.started_at.isoformat(),
        "took": duration((ended - task.started_at).total_seconds()),
        "result": result,
        "lines": list(task.lines),
    }
