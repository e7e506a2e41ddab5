"""GPUs: all of the site in one table, and one with every figure its driver tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget

from appliance.wire.gpu import GpuHistory, GpuPoint
from appliance.wire.stream import Topic
from console.cells import Cell, Column, Row
from console.screens.fleet import health_tone, heat_tone, memory_cell
from console.store import Changes, Store
from console.view import View
from console.widgets.detail import Detail, Fact
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.widgets.plot import Series, plot
from console.words import MISSING, count, or_missing, percent, size, state

_ALL: Final = (
    Column("node", "NODE", 12, grow=True),
    Column("index", "GPU", 4, right=True),
    Column("state", "STATE", 13),
    Column("used", "UTIL", 4, right=True),
    Column("memory", "MEM%", 4, right=True),
    Column("heat", "°C", 3, right=True),
    Column("power", "W", 4, right=True),
    Column("score", "SCORE", 5, right=True),
    Column("xids", "XIDS", 8, priority=3),
    Column("name", "MODEL", 22, priority=2),
)
_HOUR_S: Final = 3_600.0
_ASK_EVERY: Final = 10  # Ticks between two readings of the past
_PLOTS: Final = 3


class GpusView(View):
    """Every GPU of every node."""

    title = "GPUs"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(
            _ALL, _all_cells, sort_key=_all_key, sort_by="node", empty="No node tells of GPUs."
        )

    def compose(self) -> ComposeResult:
        yield Panel("GPUs", self._table)

    def topics(self) -> frozenset[Topic]:
        return frozenset({"gpus"})

    def update(self, store: Store, changes: Changes) -> None:
        rows = store.table("gpus")
        if "gpus" in changes.whole:
            self._table.replace(rows)
        elif changes.touches("gpus"):
            changed = {uuid: rows[uuid] for uuid in changes.changed("gpus") if uuid in rows}
            self._table.patch(changed, changes.ended("gpus"))
        self.panel().entitle(f"GPUs {len(rows)}")

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        await self.console.open(GpuView(event.row_id))


class GpuView(View):
    """`uuid` is the row of the topic `gpus`."""

    DEFAULT_CSS: ClassVar[str] = """
    GpuView #facts { width: 42; }
    GpuView #past { width: 1fr; margin: 0 0 0 1; }
    """

    def __init__(self, uuid: str) -> None:
        super().__init__()
        self._uuid = uuid
        self._facts = Detail()
        self._past = Lines()
        self._history: GpuHistory | None = None
        self._ticks = 0

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Panel("GPU", self._facts, id="facts")
            yield Panel("Its last hour", self._past, id="past")

    def home(self) -> Widget | None:
        return self._facts

    def topics(self) -> frozenset[Topic]:
        return frozenset({"gpus", "replicas"})

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (all of it is small)
        row = store.row("gpus", self._uuid)
        if row is None:
            self._facts.show([("", "This GPU is not told of any more.", "warn")])
            return
        self.title = f"{row.get('node')} GPU {row.get('index')}"
        self._facts.show(facts(row, list(store.table("replicas").values())))
        self._ticks += 1
        if self._ticks % _ASK_EVERY == 0:
            self.shown()

    def shown(self) -> None:
        row = self.store.row("gpus", self._uuid)
        if row is not None:
            self.load(self._read(str(row.get("node_id"))), name="past")

    async def _read(self, node_id: str) -> None:
        path = f"/v1/nodes/{node_id}/gpu-history"
        self._history = await self.admin.get(path, GpuHistory, {"gpu": self._uuid})
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        points = _points(self._history, self._uuid)
        width, height = self._past.size.width or 36, self._past.size.height or 20
        if not points:
            self._past.show([[Cell("  No history yet: a point takes ten seconds.", "dim")]])
            return
        row = self.store.row("gpus", self._uuid) or {}
        each = max(4, height // _PLOTS)
        until_s = self.console.now().timestamp()
        lines: list[list[Cell]] = []
        for series, top, unit in (
            (Series("util", [(p.at_s, _float(p.utilisation)) for p in points]), 100.0, "%"),
            (
                Series("temperature", [(p.at_s, _float(p.temperature)) for p in points], "warn"),
                float(row.get("temperature_slowdown") or 100),
                "°C",
            ),
            (
                Series("power", [(p.at_s, _float(p.power)) for p in points], "good"),
                _float(row.get("power_limit")),
                "W",
            ),
        ):
            lines += plot(
                series,
                width=width,
                height=each,
                span_s=_HOUR_S,
                until_s=until_s,
                top=top,
                unit=unit,
            )
        self._past.show(lines)

    def subject(self) -> Any:
        return self.store.row("gpus", self._uuid)


def _points(history: GpuHistory | None, uuid: str) -> Sequence[GpuPoint]:
    for series in history.gpus if history else ():
        if series.uuid == uuid and series.rings:
            return series.rings[0].points
    return ()


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def facts(row: Row, replicas: Sequence[Row]) -> list[Fact]:
    """Name, value and tone of everything that is told of a GPU."""
    held = size(row.get("memory_used_bytes"))
    whole = size(row.get("memory_total_bytes"))
    links = row.get("links") or ()
    up = sum(bool(link.get("up")) for link in links)
    bad_links = bool(links) and up < len(links)
    used_by = [
        str(replica.get("deployment"))
        for replica in replicas
        if row.get("uuid") in (replica.get("gpus") or ())
    ]
    links_up = f"{up} of {len(links)} up" if links else MISSING
    lines: list[Fact] = [
        ("state", state(row.get("state")).text, state(row.get("state")).tone),
        ("score", count(row.get("score")), health_tone(row.get("score"))),
        ("model", str(row.get("name", "")), "plain"),
        ("node", str(row.get("node", "")), "plain"),
        ("UUID", str(row.get("uuid", "")), "dim"),
        ("PCI", str(row.get("bus_id", "")), "dim"),
        ("serves", ", ".join(used_by) or MISSING, "plain"),
        ("utilisation", percent(row.get("utilisation")), "plain"),
        ("memory bus", percent(row.get("memory_utilisation")), "plain"),
        ("memory", f"{held} of {whole}", "plain"),
        ("kept by driver", size(row.get("memory_reserved_bytes")), "plain"),
        ("temperature", f"{count(row.get('temperature'))} °C", heat_tone([row])),
        ("slows down at", f"{count(row.get('temperature_slowdown'))} °C", "plain"),
        ("power", f"{count(row.get('power'))} of {count(row.get('power_limit'))} W", "plain"),
        ("clock", f"{count(row.get('sm_clock'))} of {count(row.get('sm_clock_max'))} MHz", "plain"),
        ("memory clock", f"{count(row.get('memory_clock'))} MHz", "plain"),
        ("fan", percent(row.get("fan")), "plain"),
        ("slowed by", ", ".join(row.get("throttle_reasons") or ()) or "nothing", "plain"),
        ("ECC", _ecc(row), "bad" if row.get("ecc_uncorrected") else "plain"),
        ("remapped rows", _remapped(row), "bad" if row.get("remap_failed") else "plain"),
        ("XIDs", ", ".join(map(str, row.get("xids") or ())) or "none", "plain"),
        ("NVLinks", links_up, "bad" if bad_links else "plain"),
        ("CUDA level", or_missing(row.get("compute_capability")), "plain"),
        ("MIG", _on_off(row.get("mig")), "plain"),
    ]
    lines += [
        ("  slice", f"{each.get('profile')} {each.get('uuid')}", "plain")
        for each in row.get("slices") or ()
    ]
    for process in row.get("processes") or ():
        text = f"{process.get('name')} {size(process.get('memory_bytes'))}"
        ours = " (an engine of ours)" if process.get("replica_id") else ""
        lines.append((f"  pid {process.get('pid')}", text + ours, "plain"))
    return lines


def _on_off(value: object) -> str:
    return MISSING if value is None else "on" if value else "off"


def _ecc(row: Row) -> str:
    if row.get("ecc_enabled") is None:
        return MISSING
    if not row["ecc_enabled"]:
        return "off"
    corrected, uncorrected = count(row.get("ecc_corrected")), count(row.get("ecc_uncorrected"))
    return f"{uncorrected} uncorrected, {corrected} corrected"


def _remapped(row: Row) -> str:
    text = count(row.get("remapped_rows"))
    if row.get("remap_failed"):
        return f"{text}, remapping FAILED: replace the GPU"
    return f"{text}, one pending a reset" if row.get("remap_pending") else text


def _all_cells(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(str(row.get("node", ""))),
        Cell(count(row.get("index"))),
        state("unreachable" if row.get("stale") else row.get("state")),
        Cell(percent(row.get("utilisation"))),
        memory_cell(row),
        Cell(count(row.get("temperature")), heat_tone([row])),
        Cell(count(row.get("power"))),
        Cell(count(row.get("score")), health_tone(row.get("score"))),
        Cell(",".join(map(str, row.get("xids") or ())) or MISSING),
        Cell(str(row.get("name", ""))),
    ]


def _all_key(_row_id: str, row: Row, column: str) -> Any:
    if column == "node":
        return (str(row.get("node")), row.get("index") or 0)
    names = {"used": "utilisation", "memory": "memory_used_bytes", "heat": "temperature"}
    value = row.get(names.get(column, column))
    return len(value) if isinstance(value, list) else value
