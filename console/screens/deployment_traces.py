"""Why the replicas of a deployment run where they do, and what its engines wrote."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widget import Widget

from appliance.wire.engine_traces import ReplicaDump, ReplicaLog
from appliance.wire.placement import Explanation, NodeVerdict
from console.cells import Cell, Column, Row
from console.view import View
from console.widgets.dialogs import TextDialog
from console.widgets.live_table import LiveTable
from console.widgets.log_text import LogText
from console.widgets.panel import Lines, Panel
from console.words import MISSING, count

if TYPE_CHECKING:
    from console.client import Admin

_NODES: Final = (
    Column("node", "NODE", 14),
    Column("verdict", "VERDICT", 12),
    Column("running", "REPL", 4, right=True),
    Column("score", "SCORE", 6, right=True, priority=2),
    Column("gpus", "GPUS", 4, right=True, priority=3),
    Column("why", "WHY", 20, grow=True),
)
_FOLLOW_S: Final = 2.0  # between two readings of engines' logs
_LINES_MAX: Final = 5_000
_LOG_LINES: Final = 200


class PlacementView(View):
    """What each node has to offer to one more replica, in words."""

    DEFAULT_CSS: ClassVar[str] = """
    PlacementView #need { height: 5; }
    PlacementView #nodes { height: 1fr; }
    """
    BINDINGS: ClassVar[list[Any]] = [Binding("c", "commands", "What is started")]

    def __init__(self, deployment_id: str) -> None:
        super().__init__()
        self.title = "why here"
        self._deployment_id = deployment_id
        self._explanation: Explanation | None = None
        self._verdicts: dict[str, NodeVerdict] = {}
        self._need = Lines()
        self._table = LiveTable(
            _NODES,
            _verdict_cells,
            sort_key=_verdict_key,
            sort_by="score",
            descending=True,
            empty="pending…",
        )

    def compose(self) -> ComposeResult:
        yield Panel("What one replica needs", self._need, id="need")
        yield Panel("Nodes", self._table, id="nodes")

    def home(self) -> Widget | None:
        return self._table

    def shown(self) -> None:
        self.load(self._read())

    async def _read(self) -> None:
        path = f"/v1/deployments/{self._deployment_id}/explain"
        self._explanation = explanation = await self.admin.get(path, Explanation)
        self._verdicts = {verdict.node: verdict for verdict in explanation.nodes}
        self._table.say_empty("No nodes yet.")
        self._table.replace(
            {
                verdict.node: {
                    "node": verdict.node,
                    "verdict": _verdict(verdict),
                    "running": verdict.running,
                    "score": verdict.score,
                    "gpus": len(verdict.gpus),
                    "why": "; ".join(verdict.reasons),
                }
                for verdict in explanation.nodes
            }
        )
        self._show_need()

    def on_resize(self) -> None:
        self._show_need()

    def _show_need(self) -> None:
        explanation = self._explanation
        if explanation is None:
            return
        need = explanation.need
        text = "It is not known: the files of its model say nothing." if need is None else need.text
        lines = [[Cell("  " + line)] for line in textwrap.wrap(text, max(20, self.size.width - 4))]
        if explanation.reason:
            wrapped = textwrap.wrap(explanation.reason, max(20, self.size.width - 4))
            lines += [[Cell("  " + line, "warn")] for line in wrapped]
        self._need.show(lines[:4])
        fitting = sum(verdict.score is not None for verdict in explanation.nodes)
        self.panel("#need").entitle(
            f"What one replica of {explanation.deployment} needs",
            Cell("c what is started", "dim"),
        )
        self.panel("#nodes").entitle(
            f"Nodes {len(explanation.nodes)}: {fitting} could take one more"
        )

    @on(LiveTable.Opened)
    def _opened(self, event: LiveTable.Opened) -> None:
        verdict = self._verdicts.get(event.row_id)
        if verdict is None:
            return
        lines = [f"{_verdict(verdict)}, {count(verdict.running)} of its replicas there", ""]
        lines += [f"- {reason}" for reason in verdict.reasons] or ["Nothing speaks against it."]
        if verdict.gpus:
            lines += ["", "It would get:", *(f"  {gpu}" for gpu in verdict.gpus)]
        self.console.push_screen(TextDialog(f"Node {verdict.node}", "\n".join(lines)))

    def action_commands(self) -> None:
        explanation = self._explanation
        if explanation is None:
            return
        lines = []
        if explanation.arguments:
            lines += [
                f"A start of {explanation.engine} is told:",
                shlex.join(explanation.arguments),
            ]
        for command in explanation.commands:
            lines += ["", "Runs:", shlex.join(command)]
        text = "\n".join(lines) or "Nothing runs of it."
        self.console.push_screen(TextDialog("What is started", text))

    def subject(self) -> Any:
        return None if self._explanation is None else msgspec.to_builtins(self._explanation)


def _verdict(verdict: NodeVerdict) -> str:
    if verdict.chosen:
        return "next here"
    return "could" if verdict.score is not None else "cannot"


def _verdict_cells(_row_id: str, row: Row) -> list[Cell]:
    word = row["verdict"]
    glyph, tone = {
        "next here": ("●", "good"),
        "could": ("○", "plain"),
        "cannot": ("✖", "bad"),
    }[word]
    return [
        Cell(row["node"]),
        Cell(f"{glyph} {word}", tone),  # type: ignore[arg-type]  # one of the tones
        Cell(count(row["running"])),
        Cell(count(row["score"])),
        Cell(str(row["gpus"]) if row["gpus"] else MISSING),
        Cell(row["why"] or "Nothing speaks against it."),
    ]


def _verdict_key(_row_id: str, row: Row, column: str) -> Any:
    return row[column]


class EngineLogView(View):
    """The ends of the logs of a deployment's engines, followed. `replica_id` "": of all."""

    DEFAULT_CSS: ClassVar[str] = """
    EngineLogView Log { height: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 1; }
    """

    def __init__(self, deployment_id: str, replica_id: str = "") -> None:
        super().__init__()
        self.title = "logs"
        self._deployment_id = deployment_id
        self._of_replica = replica_id
        self._known: dict[tuple[str, str], list[str]] = {}
        self._problems: dict[tuple[str, str], str] = {}
        self._log = LogText(max_lines=_LINES_MAX)

    def compose(self) -> ComposeResult:
        yield Panel("Engine logs", self._log, id="log")

    def home(self) -> Widget | None:
        return self._log

    def on_mount(self) -> None:
        self.set_interval(_FOLLOW_S, self._follow)

    def shown(self) -> None:
        self.load(self._read())

    def _follow(self) -> None:
        if self.console.top is self and not self.console.paused:
            self.load(self._read())

    async def _read(self) -> None:
        found = await self.admin.get(
            f"/v1/deployments/{self._deployment_id}/logs",
            list[ReplicaLog],
            {"replica": self._of_replica, "lines": _LOG_LINES},
        )
        new: list[str] = []
        for each in found:
            place = (each.replica, each.node)
            mark = "" if len(found) == 1 else f"{each.node} {each.replica[-6:]} "
            fresh = new_lines(self._known.get(place, []), each.lines)
            new += [mark + printable(line) for line in fresh]
            nothing = "" if each.lines else "It has written nothing since its start."
            said = each.problem or nothing
            if said and self._problems.get(place) != said:
                new.append(f"{mark}-- {said}")
            self._known[place], self._problems[place] = list(each.lines), said
        at_end = self._log.is_vertical_scroll_end
        if new:
            self._log.write_lines(new, scroll_end=at_end)
        nodes = ", ".join(sorted({each.node for each in found})) or "no node"
        lines = self._log.line_count
        what = f"Engine logs on {nodes}" if lines or found else "No engine of it runs"
        self.panel("#log").entitle(
            what, Cell("followed" if at_end else "End goes on following", "dim")
        )

    def subject(self) -> Any:
        return [{"replica": r, "node": n, "lines": each} for (r, n), each in self._known.items()]


def new_lines(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """What `now` has beyond `before`, both the end of one log; all of it when it began anew."""
    for length in range(min(len(before), len(now)), 0, -1):
        if before[-length:] == now[:length]:
            return now[length:]
    return now


def printable(line: str) -> str:
    """What an engine wrote does not command this terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in line)


async def dumps_text(admin: Admin, deployment_id: str) -> str:
    """What was kept of engines that hung, for a person."""
    found = await admin.get(f"/v1/deployments/{deployment_id}/dumps", list[ReplicaDump])
    lines: list[str] = []
    for each in found:
        lines.append(f"{each.replica} on {each.node} {each.at or ''}".rstrip())
        if each.problem:
            lines.append(f"  {each.problem}")
        if each.dump is None:
            lines += [] if each.problem else ["  none was ever taken"]
            continue
        lines.append(f"  {each.dump.reason}")
        for process in each.dump.processes:
            lines.append(f"  process {process.pid} {process.name}, {process.thread_count} threads")
            lines += [
                f"    {thread.tid} {thread.name}: {thread.state}, waits in {thread.waits_in or '-'}"
                for thread in process.threads
            ]
        lines += ["  The end of its log:", *(f"    {printable(line)}" for line in each.dump.log)]
    return "\n".join(lines) or "It has no engine of this site."
