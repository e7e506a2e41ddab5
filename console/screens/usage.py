"""5 Usage: who used how many tokens, and how the site stands with those who bill them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widget import Widget

from appliance.wire.admin import UsageRow
from appliance.wire.stream import Topic
from appliance.wire.sync import EntitlementStatus
from console.actions import Action
from console.cells import Cell, Column, Row, Tone
from console.screens.manifests import ManifestsView
from console.screens.records import RecordsView
from console.screens.usage_actions import of_the_site
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.widgets.plot import Series, plot
from console.words import MISSING, ago, count, duration, moment, or_missing, until

_GROUPS: Final = (
    ("tenant", "model"),
    ("tenant",),
    ("model",),
    ("tenant", "environment", "key"),
    ("hour",),
)
# Words, and how long; None: everything there is.
_SPANS: Final = (
    ("today", None),
    ("24 hours", timedelta(days=1)),
    ("7 days", timedelta(days=7)),
    ("31 days", timedelta(days=31)),
    ("all time", None),
)
_COLUMNS: Final = (
    Column("who", "WHO", 20, grow=True),
    Column("requests", "REQUESTS", 9, right=True),
    Column("input", "TOKENS IN", 10, right=True),
    Column("output", "TOKENS OUT", 11, right=True),
    Column("cached", "CACHED", 8, right=True, priority=2),
    Column("share", "SHARE", 5, right=True, priority=3),
)
_KEYS: Final = {
    "requests": "requests",
    "input": "input_tokens",
    "output": "output_tokens",
    "share": "output_tokens",
    "cached": "cached_tokens",
}
_ASK_EVERY: Final = 10  # Ticks
_STAGE_TONES: Final[dict[str, Tone]] = {
    "active": "good",
    "warning": "warn",
    "grace": "warn",
    "frozen": "bad",
    "throttled": "bad",
}


class UsageView(View):
    """Sums of the ledger by what is chosen; below how they went on to the bill."""

    DEFAULT_CSS: ClassVar[str] = """
    UsageView #standing { height: 6; }
    UsageView #usage { width: 1fr; }
    UsageView #hours { width: 62; margin: 0 0 0 1; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("b", "group", "By what"),
        Binding("d", "span", "Of which days"),
        Binding("m", "manifests", "Manifests"),
        Binding("l", "records", "Records of the ledger"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._group = 0
        self._span = 0
        self._ticks = 0
        self._total = 0
        self._entitlement: EntitlementStatus | None = None
        self._hours: list[UsageRow] = []
        self._standing = Lines()
        self._plot = Lines()
        self._table = LiveTable(
            _COLUMNS,
            self._cells,
            sort_key=lambda _id, row, column: row.get(_KEYS.get(column, "who")),
            sort_by="output",
            descending=True,
            empty="Nothing was used in this time.",
        )

    def compose(self) -> ComposeResult:
        standing = Panel("Control plane and entitlement", self._standing, id="standing")
        standing.entitle("Control plane and entitlement", Cell("m manifests  l records", "dim"))
        yield standing
        with Horizontal():
            yield Panel("Usage", self._table, id="usage")
            yield Panel("Tokens out by the hour", self._plot, id="hours")

    def on_resize(self) -> None:
        for panel in self.query("#hours"):
            panel.display = self.size.width >= 120
        self._draw()

    def home(self) -> Widget | None:
        return self._table

    def topics(self) -> frozenset[Topic]:
        return frozenset({"sync"})

    def update(self, store: Store, changes: Changes) -> None:
        if changes.touches("sync") or changes.touches("site"):
            self._stand(store)
        self._ticks += 1
        if self._ticks % _ASK_EVERY == 0:
            self.shown()

    def shown(self) -> None:
        self.load(self._read(), name="usage")

    def reveal(self, part: str) -> None:
        if part == "manifests":
            self.call_later(self.action_manifests)

    async def _read(self) -> None:
        by = _GROUPS[self._group]
        query = {"since": self._since(), "by": ",".join(by)}
        rows = await self.admin.get("/v1/usage", list[UsageRow], query)
        self._total = sum(row.output_tokens for row in rows)
        self._table.replace({_name(row, by): _shown(row, by) for row in rows})
        words, _ = _SPANS[self._span]
        self.panel("#usage").entitle(
            f"Usage by {', '.join(by)}, {words}", Cell("b by, d days", "dim")
        )
        self._entitlement = await self.admin.get("/v1/entitlement", EntitlementStatus)
        self._stand(self.store)
        if self.size.width >= 120:
            query = {"since": self._since(), "by": "hour"}
            self._hours = await self.admin.get("/v1/usage", list[UsageRow], query)
            self._draw()

    def _since(self) -> str | None:
        words, span = _SPANS[self._span]
        now = self.console.now().astimezone(UTC)
        if words == "today":
            return now.strftime("%Y-%m-%dT00:00:00Z")
        return None if span is None else (now - span).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _stand(self, store: Store) -> None:
        now = self.console.now()
        sync = store.row("sync", "sync") or {}
        site = store.site or {}
        lag = sync.get("lag_manifests")
        lines = [
            [
                Cell("  control plane  ", "dim"),
                Cell(or_missing(sync.get("state")), _sync_tone(sync)),
                Cell(
                    f"  last contact {ago(sync['last_contact'], now)} ago"
                    if sync.get("last_contact")
                    else "  no contact yet"
                ),
                Cell(f"  {sync.get('control_plane_url') or _unwired(sync)}", "dim"),
            ],
            [
                Cell("  manifests      ", "dim"),
                Cell(f"sealed to {count(sync.get('sealed_through'))}"),
                Cell(f", receipted to {count(sync.get('accepted_through'))}"),
                Cell(f", {count(lag)} wait", "warn" if lag else "plain"),
                Cell(f" since {duration(sync.get('lag_age_s'))}" if lag else ""),
                Cell(f"; {count(site.get('unsealed'))} unsealed"),
            ],
            self._licence(),
        ]
        trouble = sync.get("alarm_detail") or sync.get("last_error") or ""
        step = sync.get("next_step") or ""
        lines.append([Cell(f"  {trouble} {step}".rstrip(), "bad" if trouble else "dim")])
        self._standing.show(lines)

    def _licence(self) -> list[Cell]:
        licence = self._entitlement
        if licence is None:
            return [Cell("  entitlement    ", "dim"), Cell(MISSING, "dim")]
        if licence.stage == "none":
            return [Cell("  entitlement    ", "dim"), Cell("none installed", "dim")]
        now = self.console.now()
        return [
            Cell("  entitlement    ", "dim"),
            Cell(licence.stage, _STAGE_TONES.get(licence.stage, "plain")),
            Cell(f"  ends in {until(licence.lease_ends, now)}"),
            Cell(f", freezes in {until(licence.freezes_at, now)}", "dim"),
            Cell(f"  {licence.gpus}/{licence.gpu_count} GPUs" if licence.gpu_count else ""),
            Cell(f"  {licence.customer}", "dim"),
        ]

    def _draw(self) -> None:
        width, height = self._plot.size.width, self._plot.size.height
        if width < 20 or height < 5:
            return
        points = sorted(
            (_hour_s(row.hour), float(row.output_tokens)) for row in self._hours if row.hour
        )
        until_s = self.console.now().timestamp()
        first = points[0][0] if points else until_s - 86_400
        series = Series("tokens out an hour", [*points])
        lines = plot(
            series,
            width=width,
            height=min(height, 16),
            span_s=max(86_400.0, until_s - first),
            until_s=until_s,
        )
        self._plot.show(lines)

    def actions(self) -> Sequence[Action]:
        return of_the_site()

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    async def action_group(self) -> None:
        self._group = (self._group + 1) % len(_GROUPS)
        self.shown()

    async def action_span(self) -> None:
        self._span = (self._span + 1) % len(_SPANS)
        self.shown()

    async def action_manifests(self) -> None:
        await self.console.open(ManifestsView())

    async def action_records(self) -> None:
        await self.console.open(RecordsView())

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        """The records behind a sum."""
        row = self._table.row(event.row_id) or {}
        wanted = {name: str(row[name]) for name in _GROUPS[self._group] if row.get(name)}
        await self.console.open(RecordsView(wanted))

    def _cells(self, row_id: str, row: Row) -> list[Cell]:
        share = 100 * row["output_tokens"] / self._total if self._total else None
        return [
            Cell(row_id),
            Cell(f"{row['requests']:,}"),
            Cell(f"{row['input_tokens']:,}"),
            Cell(f"{row['output_tokens']:,}"),
            Cell(f"{row['cached_tokens']:,}"),
            Cell(MISSING if share is None else f"{share:.0f}%"),
        ]


def _name(row: UsageRow, by: Sequence[str]) -> str:
    return " / ".join(str(getattr(row, name) or MISSING) for name in by)


def _shown(row: UsageRow, by: Sequence[str]) -> Row:
    return {**msgspec.to_builtins(row), "who": _name(row, by)}


def _hour_s(hour: str | None) -> float:
    """Seconds on the wall clock; what is no time lies before every span."""
    at = moment(hour)
    return 0.0 if at is None else at.timestamp()


def _unwired(sync: Row) -> str:
    """Without an address: what is exchanged is carried, or nothing is."""
    return "what goes there is carried" if sync.get("state") == "offline" else "not enrolled"


def _sync_tone(sync: Row) -> Tone:
    tones: dict[str, Tone] = {"connected": "good", "offline": "warn", "frozen": "bad"}
    return tones.get(str(sync.get("state")), "dim")
