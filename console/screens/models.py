"""3 Models: what is deployed and how it does, and the models that could be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widget import Widget

from appliance.wire.models import PackCopying
from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row
from console.screens.deployment_rates import DeploymentRates
from console.screens.model_actions import (
    import_pack,
    new_deployment,
    of_deployment,
    of_model,
    register_model,
)
from console.store import Changes, Store
from console.view import View
from console.widgets.keeping import keep
from console.widgets.line import fit
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import MISSING, count, milliseconds, or_missing, percent, size, state

_DEPLOYMENTS: Final = (
    Column("name", "DEPLOYMENT", 20, grow=True),
    Column("replicas", "REP", 5, right=True),
    Column("state", "STATE", 11),
    Column("running", "RUN", 4, right=True),
    Column("queued", "WAIT", 4, right=True),
    Column("cache", "KV%", 4, right=True, priority=2),
    Column("rate", "TOK/s", 6, right=True),
    Column("first", "TTFT95", 6, right=True),
    Column("engine", "ENGINE", 8, priority=5),
    Column("model", "MODEL", 14, priority=6),
    Column("trend", "BY MINUTE", 16, priority=7, grow=True, most=60, newest=True),
)
_DEPLOYMENT_KEYS: Final = {
    "replicas": "replicas_ready",
    "running": "requests_running",
    "queued": "requests_queued",
    "cache": "cache_used_percent",
    "rate": "output_tokens_per_s",
    "trend": "output_tokens_per_s",
    "first": "first_token_p95_ms",
}
_MODELS: Final = (
    Column("name", "MODEL", 16, grow=True),
    Column("size", "SIZE", 5, right=True),
    Column("state", "STATE", 11),
    Column("used", "DEPLOYED", 8, right=True),
    Column("licence", "LICENCE", 12, priority=2),
    Column("digest", "SHA-256", 12, priority=3),
    Column("version", "VERSION", 8, priority=4),
    Column("publisher", "PACK BY", 9, priority=5),
)
_ASK_S: Final = 1.0  # between two looks at the import under way


class ModelsView(View):
    """Deployments above, registered models below. Enter opens a deployment."""

    DEFAULT_CSS: ClassVar[str] = """
    ModelsView #deployments { height: 3fr; }
    ModelsView #models { height: 2fr; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("c", "packs", "Catalogue, and packs on media"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rates = DeploymentRates(self)
        self._using: dict[str, list[str]] = {}  # model -> its deployments
        self._wanted: str | None = None
        self._copying = False
        self._deployments = LiveTable(
            _DEPLOYMENTS,
            self._deployment_cells,
            sort_key=lambda _id, row, column: row.get(_DEPLOYMENT_KEYS.get(column, column)),
            sort_by="name",
            empty="Nothing is deployed yet. N deploys a model.",
        )
        self._models = LiveTable(
            _MODELS,
            self._model_cells,
            sort_key=self._model_key,
            sort_by="name",
            empty="No models yet. I imports a pack, A adds files, c shows the catalogue.",
        )

    def compose(self) -> ComposeResult:
        yield Panel("1 Deployments", self._deployments, id="deployments")
        yield Panel("2 Models", self._models, id="models")

    def on_mount(self) -> None:
        self.set_interval(_ASK_S, self._ask_copying)

    def home(self) -> Widget | None:
        return self._deployments

    def topics(self) -> frozenset[Topic]:
        return frozenset({"deployments", "models", "environments"})

    def update(self, store: Store, changes: Changes) -> None:
        deployments = store.table("deployments")
        moved = changes.touches("deployments") and self._rates.note(store)
        if changes.touches("deployments"):
            using: dict[str, list[str]] = {}
            for row in deployments.values():
                using.setdefault(str(row.get("model")), []).append(str(row.get("name")))
            if using != self._using:
                self._using = using
                self._models.replace(store.table("models"))
        keep(self._deployments, store, changes, "deployments")
        if moved:
            self._deployments.repaint()
        keep(self._models, store, changes, "models")
        if self._wanted is not None and self._wanted in deployments:
            self._deployments.select(self._wanted)
            self._wanted = None
        self._entitle(store)

    def reveal(self, part: str) -> None:
        self._wanted = part
        self._deployments.select(part)

    def _entitle(self, store: Store) -> None:
        rows = store.table("deployments").values()
        bad = sum(row.get("state") in ("failed", "degraded") for row in rows)
        note = Cell(f"{bad} not well", "bad") if bad else Cell("Enter opens one", "dim")
        row = (
            self._deployments.row(self._deployments.current) if self._deployments.current else None
        )
        if row is not None and row.get("reason"):
            note = Cell(fit(str(row["reason"]), max(10, self.size.width - 30)), "warn")
        self.panel("#deployments").entitle(f"1 Deployments {len(rows)}", note)
        if not self._copying:
            self._entitle_models(Cell("c catalogue and packs", "dim"))

    def _entitle_models(self, note: Cell) -> None:
        text = f"2 Models {len(self.store.table('models'))}"
        self.panel("#models").entitle(text, note)

    def _ask_copying(self) -> None:
        if self.console.top is self and (self.console.tasks.running or self._copying):
            self.load(self._read_copying(), name="copying")

    async def _read_copying(self) -> None:
        copying = await self.admin.get("/v1/models/packs/copying", PackCopying)
        self._copying = bool(copying.model)
        if self._copying:
            self._entitle_models(Cell(copied(copying), "accent"))
        else:
            self._entitle(self.store)

    def shown(self) -> None:
        self.load(self._rates.read(self._deployments.repaint), name="rates")

    def actions(self) -> Sequence[Action]:
        names = sorted(str(row["name"]) for row in self.store.table("models").values())
        if self._models.has_focus:
            row = self._models.row(self._models.current) if self._models.current else None
            if row is None:
                return (import_pack(), register_model(), new_deployment(names))
            name = str(row["name"])
            of_row = of_model(row, sorted(self._using.get(name, [])))
            return (new_deployment(names, name), *of_row, import_pack(), register_model())
        row = (
            self._deployments.row(self._deployments.current) if self._deployments.current else None
        )
        of_row = [] if row is None else of_deployment(row, allowed_by(self.store, row))
        return (*of_row, new_deployment(names), import_pack())

    def subject(self) -> Any:
        table = self._models if self._models.has_focus else self._deployments
        return [table.row(row_id) for row_id in table.shown]

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()
        self._entitle(self.store)

    def on_descendant_focus(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        if event.table is self._deployments:
            from console.screens.deployment import DeploymentView  # noqa: PLC0415 (when it is opened)

            await self.console.open(DeploymentView(event.row_id))
            return
        from console.widgets.dialogs import TextDialog  # noqa: PLC0415 (when it is opened)

        row = self._models.row(event.row_id)
        if row is not None:
            used = ", ".join(sorted(self._using.get(str(row["name"]), []))) or "nothing yet"
            self.console.push_screen(TextDialog(f"Model {row['name']}", model_text(row, used)))

    async def action_packs(self) -> None:
        from console.screens.packs import PacksView  # noqa: PLC0415 (when it is opened)

        await self.console.open(PacksView())

    def _deployment_cells(self, _row_id: str, row: Row) -> list[Cell]:
        return [
            Cell(str(row.get("name", ""))),
            replicas(row),
            state(row.get("state")),
            Cell(count(row.get("requests_running"))),
            waiting(row),
            Cell(percent(row.get("cache_used_percent"))),
            Cell(count(row.get("output_tokens_per_s"))),
            Cell(milliseconds(row.get("first_token_p95_ms"))),
            Cell(str(row.get("engine", "")), "dim"),
            Cell(or_missing(row.get("model")), "dim"),
            self._rates.cell(row),
        ]

    def _model_cells(self, _row_id: str, row: Row) -> list[Cell]:
        used = len(self._using.get(str(row.get("name")), ()))
        return [
            Cell(str(row.get("name", ""))),
            Cell(size(row.get("size_bytes"))),
            state(row.get("state")),
            Cell(str(used), "plain" if used else "dim"),
            Cell(or_missing(row.get("licence"))),
            Cell(digest(row), "dim"),
            Cell(or_missing(row.get("version")), "dim"),
            Cell(str(row.get("publisher") or MISSING)[:8], "dim"),
        ]

    def _model_key(self, _row_id: str, row: Row, column: str) -> Any:
        if column == "used":
            return len(self._using.get(str(row.get("name")), ()))
        return row.get("size_bytes" if column == "size" else column)


def replicas(row: Row) -> Cell:
    """Ready and wanted."""
    wanted, ready = row.get("replicas_wanted") or 0, row.get("replicas_ready") or 0
    return Cell(f"{ready}/{wanted}", "plain" if ready >= wanted else "warn")


def waiting(row: Row) -> Cell:
    queued = row.get("requests_queued")
    return Cell(count(queued), "warn" if queued else "plain")


def allowed_by(store: Store, row: Row) -> int:
    """How many environments name a deployment among their models."""
    rows = store.table("environments").values()
    return sum(row.get("name") in (each.get("models") or ()) for each in rows)


def digest(row: Row) -> str:
    return str(row.get("digest", "")).removeprefix("sha256:")[:12] or MISSING


def copied(copying: PackCopying) -> str:
    share = 100 * copying.done_bytes // max(copying.total_bytes, 1)
    done, total = size(copying.done_bytes), size(copying.total_bytes)
    return f"importing {copying.model} {done} of {total} {share}%"


def model_text(row: Row, used: str) -> str:
    facts = {
        "path": row.get("path"),
        "digest": row.get("digest"),
        "size": size(row.get("size_bytes")),
        "files": row.get("files"),
        "family": row.get("family"),
        "architecture": row.get("architecture"),
        "context": count(row.get("context_tokens")),
        "licence": row.get("licence"),
        "version": row.get("version"),
        "signed by": row.get("publisher"),
        "least driver": row.get("minimum_driver"),
        "asked after each load": "yes" if row.get("golden") else "no",
        "deployed as": used,
        "id": row.get("id"),
    }
    return "\n".join(f"{name:<22}{or_missing(value)}" for name, value in facts.items())
