"""Records of the ledger: each request that was admitted, and the proof that it is in a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult

from appliance.wire.admin import LedgerRow
from console.actions import Action
from console.cells import Cell, Column, Row
from console.client import decoded
from console.screens.usage_actions import prove
from console.view import View
from console.widgets.detail import Detail, Fact
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import clock_time, day_time, milliseconds, or_missing, state

_COLUMNS: Final = (
    Column("seq", "RECORD", 9, right=True),
    Column("settled", "SETTLED", 8),
    Column("status", "STATUS", 10),
    Column("tenant", "TENANT", 10, grow=True),
    Column("key", "KEY", 10, priority=4),
    Column("model", "MODEL", 12, priority=2),
    Column("input", "IN", 7, right=True),
    Column("output", "OUT", 7, right=True),
    Column("first", "TTFT", 6, right=True, priority=3),
    Column("latency", "TOOK", 6, right=True, priority=3),
)
_SHOWN_MAX: Final = 2_000


class RecordsView(View):
    """`wanted` narrows them by fields; `first` and `last` are numbers of the ledger."""

    title = "records"
    DEFAULT_CSS: ClassVar[str] = """
    RecordsView #record { height: 9; }
    """

    def __init__(
        self,
        wanted: Mapping[str, str] | None = None,
        *,
        first: int | None = None,
        last: int | None = None,
    ) -> None:
        super().__init__()
        self._wanted = dict(wanted or {})
        self._first = first
        self._last = last
        self._table = LiveTable(
            _COLUMNS,
            _cells,
            sort_key=_key,
            sort_by="seq",
            descending=True,
            empty="No record fits.",
        )
        self._facts = Detail()

    def compose(self) -> ComposeResult:
        yield Panel("Records", self._table, id="records")
        yield Panel("Record", self._facts, id="record")

    def shown(self) -> None:
        self.load(self._read(), name="records")

    async def _read(self) -> None:
        """From the manifest's first on; without one, the newest there are."""
        since = self._first - 1 if self._first is not None else await self._recent()
        rows: dict[str, Row] = {}
        async for line in self.admin.lines("/v1/ledger", {"since": max(0, since)}):
            if not line:
                continue
            record = decoded(line, LedgerRow)
            if self._last is not None and record.seq > self._last:
                break
            row = msgspec.to_builtins(record)
            if all(self._fits(row, name, text) for name, text in self._wanted.items()):
                rows[record.record_id] = row
                if len(rows) > _SHOWN_MAX:
                    del rows[next(iter(rows))]
        self._table.replace(rows)
        of = ", ".join(_told(name, text) for name, text in self._wanted.items())
        many = "the last " if len(rows) == _SHOWN_MAX else ""
        title = f"Records, {many}{len(rows):,}" + (f" of {of}" if of else "")
        self.panel("#records").entitle(title)

    async def _recent(self) -> int:
        site = self.store.site or {}
        return int(site.get("records") or 0) - 20 * _SHOWN_MAX

    @staticmethod
    def _fits(row: Row, name: str, text: str) -> bool:
        if name == "hour":
            return str(row["settled_at"])[:13] == text[:13]
        return str(row.get(name)) == text or str(row.get(f"{name}_id")) == text

    def actions(self) -> Sequence[Action]:
        return () if self._table.current is None else (prove(self._table.current),)

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    @on(LiveTable.Moved)
    def _moved(self, event: LiveTable.Moved) -> None:
        row = self._table.row(event.row_id) if event.row_id else None
        self._facts.show([] if row is None else _facts(row))
        self.selection_changed()


def _told(name: str, text: str) -> str:
    """A field's value; of an hour only when it began."""
    return f"{day_time(text)} and the hour after" if name == "hour" else text


def _cells(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(f"{row['seq']:,}"),
        Cell(clock_time(row["settled_at"])),
        Cell(str(row["status"]), "plain" if row["status"] == "ok" else "warn"),
        Cell(str(row["tenant"])),
        Cell(str(row["key"])),
        Cell(str(row["model"])),
        Cell(f"{row['input_tokens']:,}"),
        Cell(f"{row['output_tokens']:,}"),
        Cell(milliseconds(row["first_token_ms"])),
        Cell(milliseconds(row["latency_ms"])),
    ]


def _key(_row_id: str, row: Row, column: str) -> Any:
    names = {
        "settled": "settled_at",
        "input": "input_tokens",
        "output": "output_tokens",
        "first": "first_token_ms",
        "latency": "latency_ms",
    }
    return row[names.get(column, column)]


def _facts(row: Row) -> list[Fact]:
    failed = row["status"] != "ok"
    return [
        ("record", str(row["record_id"]), "plain"),
        ("request", str(row["request_id"]), "plain"),
        ("who", f"{row['tenant']} / {row['environment']} / {row['key']}", "plain"),
        ("what", f"{row['operation']} of {row['model']} in {row['region']}", "plain"),
        (
            "tokens",
            f"{row['input_tokens']:,} in ({row['cached_tokens']:,} cached),"
            f" {row['output_tokens']:,} out, {row['measured']}",
            "plain",
        ),
        ("opened", f"{row['opened_at']}, settled {row['settled_at']}", "plain"),
        (
            "ended",
            f"{row['status']} with HTTP {row['http_status']} {or_missing(row['error_code'])}",
            "warn" if failed else state("ok").tone,
        ),
    ]
