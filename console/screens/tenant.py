"""One tenant: its environments and keys, the limits in force on what is selected, and its day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget

from appliance.wire.admin import LayerReport, UsageRow
from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row
from console.screens.tenant_actions import (
    limit_fields,
    new_environment,
    new_key,
    of_environment,
    of_key,
)
from console.store import Changes, Store
from console.view import View
from console.widgets.bars import bar
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import MISSING, count, day_time, state

_ENVIRONMENTS: Final = (
    Column("name", "NAME", 12, grow=True),
    Column("state", "STATE", 11),
    Column("region", "REGION", 8, priority=3),
    Column("models", "MODELS", 12, priority=2),
)
_KEYS: Final = (
    Column("name", "NAME", 10, grow=True),
    Column("environment", "ENV", 8),
    Column("prefix", "KEY", 16, priority=3),
    Column("role", "ROLE", 9, priority=2),
    Column("state", "STATE", 11),
    Column("expires", "EXPIRES", 16, priority=4),
)
_HEADS: Final = {
    "requests_per_min": "REQUESTS/min",
    "tokens_per_min": "TOKENS/min",
    "tokens_per_day": "TOKENS/24 h",
    "concurrency": "AT WORK",
}
_LIMITS_EVERY: Final = 3  # Ticks between two readings of the limits of what is selected


class TenantView(View):
    """`tenant_id` is the row of the topic `tenants`."""

    DEFAULT_CSS: ClassVar[str] = """
    TenantView #top { height: 1fr; }
    TenantView #environments { width: 2fr; }
    TenantView #keys { width: 3fr; margin: 0 0 0 1; }
    TenantView #limits { height: 7; }
    TenantView #today { height: 4; }
    """

    def __init__(self, tenant_id: str) -> None:
        super().__init__()
        self._tenant_id = tenant_id
        self._environments = LiveTable(
            _ENVIRONMENTS, _environment_cells, sort_by="name", empty="None yet. N makes one."
        )
        self._keys = LiveTable(_KEYS, _key_cells, sort_by="name", empty="No keys yet. N makes one.")
        self._limits = Lines()
        self._today = Lines()
        self._ticks = 0

    def compose(self) -> ComposeResult:
        with Horizontal(id="top"):
            yield Panel("1 Environments", self._environments, id="environments")
            yield Panel("2 Keys", self._keys, id="keys")
        yield Panel("Limits in force", self._limits, id="limits")
        yield Panel("Today, UTC", self._today, id="today")

    def home(self) -> Widget | None:
        return self._keys

    def topics(self) -> frozenset[Topic]:
        return frozenset({"tenants", "environments", "keys"})

    def update(self, store: Store, changes: Changes) -> None:
        row = store.row("tenants", self._tenant_id)
        if row is None:
            if store.fresh("tenants"):
                self._environments.say_empty("This tenant is no more. Esc goes back.")
        else:
            self.title = str(row["name"])
        for topic, table in (("environments", self._environments), ("keys", self._keys)):
            if changes.touches(topic):  # type: ignore[arg-type]  # two of the topics
                table.replace(self._mine(store.table(topic)))  # type: ignore[arg-type]
        self._ticks += 1
        if self._ticks % _LIMITS_EVERY == 0:
            self._ask_limits()

    def shown(self) -> None:
        self._ask_limits()
        self.load(self._read_today(), name="today")

    def actions(self) -> Sequence[Action]:
        row = self.store.row("tenants", self._tenant_id)
        if row is None:
            return ()
        tenant = str(row["name"])
        if self._environments.has_focus:
            return (*self._of_environment(), new_environment(tenant))
        key = self._keys.row(self._keys.current) if self._keys.current else None
        of_row = of_key(key) if key is not None else []
        names = [
            str(each["name"]) for each in self._mine(self.store.table("environments")).values()
        ]
        if not names:
            return (*of_row, new_environment(tenant))
        first = str(key["environment"]) if key is not None else names[0]
        return (*of_row, new_key(tenant, sorted(names), first))

    def _of_environment(self) -> list[Action]:
        row_id = self._environments.current
        row = self._environments.row(row_id) if row_id else None
        if row is None:
            return []
        keys = sum(key.get("environment_id") == row_id for key in self.store.table("keys").values())
        return of_environment(row, keys)

    def subject(self) -> Any:
        return {
            "tenant": self.store.row("tenants", self._tenant_id),
            "environments": list(self._mine(self.store.table("environments")).values()),
            "keys": list(self._mine(self.store.table("keys")).values()),
        }

    def _mine(self, rows: Mapping[str, Row]) -> dict[str, Row]:
        return {
            row_id: row for row_id, row in rows.items() if row.get("tenant_id") == self._tenant_id
        }

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()
        self._ask_limits()

    def on_descendant_focus(self) -> None:
        self.selection_changed()
        self._ask_limits()

    # What the stream does not bring.

    def _ask_limits(self) -> None:
        if self.is_attached:
            self.load(self._read_limits(), name="limits")

    async def _read_limits(self) -> None:
        query: dict[str, str | int | float | None] = {"tenant": self._tenant_id}
        if self._environments.has_focus:
            query["environment"] = self._environments.current
        elif self._keys.current:
            query = {"key": self._keys.current}
        reports = await self.admin.get("/v1/limits", list[LayerReport], query)
        self._limits.show([_titles(), *(_layer_line(report) for report in reports)])

    async def _read_today(self) -> None:
        since = self.console.now().strftime("%Y-%m-%dT00:00:00Z")
        rows = await self.admin.get(
            "/v1/usage", list[UsageRow], {"since": since, "by": "tenant,model"}
        )
        mine = [row for row in rows if row.tenant_id == self._tenant_id]
        total = [
            Cell(f"{count(sum(row.requests for row in mine))} requests  "),
            Cell(f"{count(sum(row.input_tokens for row in mine))} tokens in  "),
            Cell(f"{count(sum(row.output_tokens for row in mine))} out  "),
            Cell(f"{count(sum(row.cached_tokens for row in mine))} cached"),
        ]
        models = sorted(mine, key=lambda row: -row.output_tokens)
        by_model = "  ".join(f"{row.model} {count(row.output_tokens)}" for row in models)
        self._today.show([total, [Cell(f"out by model: {by_model or MISSING}", "dim")]])


def _environment_cells(_row_id: str, row: Row) -> list[Cell]:
    models = row.get("models")
    return [
        Cell(str(row.get("name", ""))),
        state(row.get("state")),
        Cell(str(row.get("region", ""))),
        Cell("all" if models is None else ",".join(models) or "none"),
    ]


def _key_cells(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(str(row.get("name", ""))),
        Cell(str(row.get("environment", ""))),
        Cell(str(row.get("prefix", "")), "dim"),
        Cell(str(row.get("role", ""))),
        state(row.get("state")),
        Cell(day_time(row.get("expires_at")) if row.get("expires_at") else "never"),
    ]


def _titles() -> list[Cell]:
    text = f"  {'LAYER':<12}" + "".join(f"{_HEADS[name]:<17}" for _, name in limit_fields())
    return [Cell(text, "title")]


def _layer_line(report: LayerReport) -> list[Cell]:
    """The layer, then used/limit and a small bar for each of its limits."""
    cells = [Cell(f"  {report.layer:<12}")]
    for _, name in limit_fields():
        most, used = getattr(report.limits, name), getattr(report.used, name)
        if most is None:
            cells.append(Cell(f"{'not limited':<17}", "dim"))
            continue
        text = f"{count(used)}/{count(most)}"
        cells += [Cell(f"{text:<11}"), *bar(used, most, 5), Cell(" ")]
    return cells
