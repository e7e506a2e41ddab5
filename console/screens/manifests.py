"""Sealed manifests, and the lines of one: what a bill is made of, down to its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.widget import Widget

from appliance.wire.manifests import Manifest, ManifestShown
from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row
from console.client import decoded
from console.screens.records import RecordsView
from console.screens.usage_actions import of_the_site
from console.store import Changes, Store
from console.view import View
from console.widgets.detail import Detail
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import day_time, state

_MANIFESTS: Final = (
    Column("ref", "MANIFEST", 10),
    Column("state", "STATE", 11),
    Column("sealed", "SEALED", 16),
    Column("records", "RECORDS", 8, right=True),
    Column("input", "TOKENS IN", 10, right=True),
    Column("output", "TOKENS OUT", 10, right=True),
    Column("sha256", "SHA-256", 12, grow=True, priority=2),
)
_LINES: Final = (
    Column("index", "LINE", 5, right=True),
    Column("tenant", "TENANT", 12, grow=True),
    Column("environment", "ENV", 10, priority=3),
    Column("key", "KEY", 12, priority=4),
    Column("model", "MODEL", 14, priority=2),
    Column("class", "CLASS", 10, priority=5),
    Column("requests", "REQUESTS", 8, right=True),
    Column("input", "TOKENS IN", 9, right=True),
    Column("output", "TOKENS OUT", 10, right=True),
)
_SHOWN_MAX: Final = 5_000  # the newest

_DIGITS: Final = msgspec.Meta(pattern="^[0-9]{1,30}$")


class ManifestsView(View):
    """All of them, the newest first. Enter opens one."""

    title = "manifests"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(
            _MANIFESTS,
            _manifest_cells,
            sort_key=_manifest_key,
            sort_by="ref",
            descending=True,
            empty="Nothing is sealed yet. S seals what there is.",
        )

    def compose(self) -> ComposeResult:
        yield Panel("Manifests", self._table)

    def shown(self) -> None:
        self.load(self._read(), name="manifests")

    async def _read(self) -> None:
        rows: dict[str, Row] = {}
        async for line in self.admin.lines("/v1/manifests"):
            if line:
                manifest = decoded(line, Manifest)
                rows[f"{manifest.epoch}-{manifest.seq}"] = msgspec.to_builtins(manifest)
                if len(rows) > _SHOWN_MAX:
                    del rows[next(iter(rows))]
        self._table.replace(rows)
        self.panel().entitle(f"Manifests {len(rows):,}")

    def actions(self) -> Sequence[Action]:
        return of_the_site()

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        await self.console.open(ManifestView(event.row_id))


class _Line(msgspec.Struct, frozen=True):
    """What is shown of a line. Counts are text in manifests, so that every reader keeps them."""

    tenant: str
    environment: str
    key_id: str
    model: str
    price_class: str
    hour: str
    requests: Annotated[str, _DIGITS]
    input_tokens: Annotated[str, _DIGITS]
    output_tokens: Annotated[str, _DIGITS]


class ManifestView(View):
    """`ref` is EPOCH-SEQ. Its header above, its lines below; Enter shows a line's records."""

    DEFAULT_CSS: ClassVar[str] = """
    ManifestView #facts { height: 9; }
    """

    def __init__(self, ref: str) -> None:
        super().__init__()
        self.title = ref
        self._ref = ref
        self._shown: ManifestShown | None = None
        self._facts = Detail()
        self._table = LiveTable(
            _LINES, self._line_cells, sort_key=_line_key, sort_by="index", empty="It has no lines."
        )

    def compose(self) -> ComposeResult:
        yield Panel(f"Manifest {self._ref}", self._facts, id="facts")
        yield Panel("Lines", self._table, id="lines")

    def home(self) -> Widget | None:
        return self._table

    def topics(self) -> frozenset[Topic]:
        return frozenset({"keys"})

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (names of keys)
        if changes.touches("keys"):
            self._table.repaint()

    def shown(self) -> None:
        if self._shown is None:
            self.load(self._read(), name="manifest")

    async def _read(self) -> None:
        shown = await self.admin.get(f"/v1/manifests/{self._ref}", ManifestShown)
        self._shown = shown
        manifest = shown.manifest
        self._facts.show(
            [
                ("state", state(manifest.state).text, state(manifest.state).tone),
                ("sealed", f"{day_time(manifest.sealed_at)} UTC", "plain"),
                ("records", f"{manifest.record_seq_lo:,} to {manifest.record_seq_hi:,}", "plain"),
                ("tokens in", f"{manifest.input_tokens:,}, cached included", "plain"),
                ("cached", f"{manifest.cached_tokens:,}", "plain"),
                ("tokens out", f"{manifest.output_tokens:,}", "plain"),
                ("SHA-256", manifest.sha256, "dim"),
            ]
        )
        rows = {}
        for each in shown.lines:
            row = {"index": each.index, "hidden": each.hidden}
            if not each.hidden:
                row |= msgspec.to_builtins(decoded(bytes(each.line), _Line))
            rows[str(each.index)] = row
        self._table.replace(rows)
        self.panel("#lines").entitle(f"Lines {len(rows):,}")

    def actions(self) -> Sequence[Action]:
        return [action for action in of_the_site() if action.key in ("V", "B")]

    def subject(self) -> Any:
        return None if self._shown is None else msgspec.to_builtins(self._shown)

    def _line_cells(self, _row_id: str, row: Row) -> list[Cell]:
        if row["hidden"]:
            return [Cell(str(row["index"])), Cell("(another tenant's)", "dim"), *[Cell("")] * 7]
        key = self.store.row("keys", str(row["key_id"]))
        return [
            Cell(str(row["index"])),
            Cell(str(row["tenant"])),
            Cell(str(row["environment"])),
            Cell(str(row["key_id"] if key is None else key["name"])),
            Cell(str(row["model"])),
            Cell(str(row["price_class"])),
            Cell(f"{int(row['requests']):,}"),
            Cell(f"{int(row['input_tokens']):,}"),
            Cell(f"{int(row['output_tokens']):,}"),
        ]

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        row, shown = self._table.row(event.row_id), self._shown
        if row is None or shown is None or row["hidden"]:
            return
        wanted = {name: str(row[name]) for name in ("tenant", "environment", "model", "hour")}
        key = self.store.row("keys", str(row.get("key_id")))
        if key is not None:
            wanted["key"] = str(key["name"])
        manifest = shown.manifest
        view = RecordsView(wanted, first=manifest.record_seq_lo, last=manifest.record_seq_hi)
        await self.console.open(view)


def _manifest_cells(row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(row_id),
        Cell(str(row["state"]), "good" if row["state"] == "accepted" else "plain"),
        Cell(day_time(row["sealed_at"])),
        Cell(f"{row['records']:,}"),
        Cell(f"{row['input_tokens']:,}"),
        Cell(f"{row['output_tokens']:,}"),
        Cell(str(row["sha256"]), "dim"),
    ]


def _manifest_key(_row_id: str, row: Row, column: str) -> Any:
    if column == "ref":
        return (row["epoch"], row["seq"])
    names = {"sealed": "sealed_at", "input": "input_tokens", "output": "output_tokens"}
    return row[names.get(column, column)]


def _line_key(_row_id: str, row: Row, column: str) -> Any:
    if column in ("requests", "input", "output"):
        names = {"input": "input_tokens", "output": "output_tokens"}
        return int(row.get(names.get(column, column), 0))
    return row.get({"class": "price_class", "key": "key_id"}.get(column, column))
