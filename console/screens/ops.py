"""8 Ops: the parts of a site that an administrator looks after, and how each stands."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Final

from textual import on
from textual.app import ComposeResult

from appliance.wire.admin import SiteStatus
from appliance.wire.backups import BackupList
from appliance.wire.certificates import SiteCertificate
from appliance.wire.settings import Setting
from console.actions import Action, Field
from console.cells import Cell, Column, Row
from console.client import AdminError
from console.screens.ops_checks import ChecksView, Health
from console.screens.ops_words import (
    backups,
    certificates,
    diagnosis,
    field,
    health,
    parse_figures,
    settings,
    versions,
)
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import plural

_COLUMNS: Final = (
    Column("part", "PART", 15),
    Column("state", "STATE", 11),
    Column("told", "HOW IT STANDS", 30, grow=True),
)
_PARTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "checks": (
        "Health checks",
        "cic doctor",
        "Engines are asked for a real token, disks for a write, books for their chain; each result"
        " says what to do.",
    ),
    "settings": (
        "Settings",
        "cic settings list",
        "Every setting with its source, meaning and range. E edits one: the file as a whole is"
        " checked before it is written.",
    ),
    "certificates": (
        "Certificates",
        "cic certificate list",
        "The site's CA, the appliance's own certificate, and those of its nodes.",
    ),
    "backups": (
        "Backups",
        "cic backup list",
        "Settings, tenants, keys, ledger and secrets, encrypted, made while the site serves; tried"
        " out by V; put back by a command of a stopped site.",
    ),
    "support": (
        "Support bundle",
        "cic support create",
        "What helps others to help, in one file: chosen piece by piece, redacted, sent nowhere. B"
        " writes it; `:support list` shows what it holds.",
    ),
    "version": (
        "Versions",
        "cic status",
        "What runs here and on each node, and how a newer version comes.",
    ),
    "diagnostics": (
        "Diagnostics",
        "curl --unix-socket HOME/run/admin.sock http://appliance/metrics",
        "Processor, memory, open files, event loop, the ledger's commits, requests and connections"
        " of the serving process.",
    ),
    "tasks": ("Tasks", "", "What slow actions of this console did or still do."),
}
Told = tuple[Cell, str]
_WAITING: Final[Told] = (Cell("…", "dim"), "")


class OpsView(View):
    """Enter opens a part."""

    DEFAULT_CSS: ClassVar[str] = "OpsView #about { height: 7; }"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(_COLUMNS, _cells, sort_by="")
        self._about = Lines()
        self._health = Health()
        self._standing: dict[str, Told] = {}
        self._backup_folder = ""

    def compose(self) -> ComposeResult:
        yield Panel("Ops", self._table, id="parts")
        yield Panel("About it", self._about, id="about")

    def shown(self) -> None:
        self._show()
        for part, reading in (
            ("settings", self._read_settings),
            ("certificates", self._read_certificates),
            ("backups", self._read_backups),
            ("version", self._read_version),
            ("diagnostics", self._read_figures),
        ):
            self.load(self._stand(part, reading), name=part)

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (of the frame)
        self._show()

    def reveal(self, part: str) -> None:
        """Open it, as Enter on its row would."""
        if part in _PARTS:
            self._table.select(part)
            self.console.call_later(self._open, part)

    def actions(self) -> Sequence[Action]:
        """Of the part under the cursor, what needs no other screen."""
        if self._table.current == "support":
            return (_support(),)
        if self._table.current != "backups":
            return ()
        from console.screens.ops_backups import create, key_out  # noqa: PLC0415 (rarely needed)

        return create(self._backup_folder), key_out()

    def subject(self) -> Any:
        return {part: [state.text, told] for part, (state, told) in self._told().items()}

    async def _stand(self, part: str, reading: Callable[[], Coroutine[Any, Any, Told]]) -> None:
        """What cannot be read is said in its own line, not as a notice over all others."""
        try:
            self._standing[part] = await reading()
        except AdminError as error:
            self._standing[part] = (Cell("✖ unread", "bad"), error.message)
        self._show()

    async def _read_settings(self) -> Told:
        return settings(await self.admin.get("/v1/settings", list[Setting]))

    async def _read_certificates(self) -> Told:
        return certificates(await self.admin.get("/v1/certificates", list[SiteCertificate]))

    async def _read_backups(self) -> Told:
        found = await self.admin.get("/v1/backups", BackupList)
        self._backup_folder = found.folder
        return backups(found, self.console.now())

    async def _read_version(self) -> Told:
        status = await self.admin.get("/v1/status", SiteStatus)
        return versions(status.version, status.nodes)

    async def _read_figures(self) -> Told:
        lines = [line.decode() async for line in self.admin.lines("/metrics")]
        return diagnosis(parse_figures("\n".join(lines)))

    def _told(self) -> dict[str, Told]:
        running, all_tasks = self.console.tasks.running, len(self.console.tasks.all)
        tasks: Told = (Cell("○ none", "dim"), "no slow action was begun here")
        if all_tasks:
            state = Cell("◐ running", "accent") if running else Cell("● done", "good")
            tasks = (state, f"{running} of {plural(all_tasks, 'task')} at work")
        checks = health(
            *(self._health.results, self._health.began, self.console.now()),
            running=self._health.running,
        )
        never: Told = (Cell("○ none", "dim"), "nothing is collected until B asks for it")
        own = {"checks": checks, "tasks": tasks, "support": never}
        return {part: own.get(part) or self._standing.get(part, _WAITING) for part in _PARTS}

    def _show(self) -> None:
        rows = {
            part: {"part": _PARTS[part][0], "state": state, "told": told}
            for part, (state, told) in self._told().items()
        }
        if self._table.shown:
            changed = {part: row for part, row in rows.items() if self._table.row(part) != row}
            self._table.patch(changed)
        else:
            self._table.replace(rows)
        self._tell()

    def _tell(self) -> None:
        part = self._table.current
        if part is None:
            return
        _, command, about = _PARTS[part]
        told = self._told()[part][1]
        width = self.console.size.width
        lines = field("now", told, width) + field("it is", about, width)
        self._about.show(lines + (field("command", command, width, "dim") if command else []))

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self._tell()
        self.selection_changed()

    @on(LiveTable.Opened)
    async def _opened(self, event: LiveTable.Opened) -> None:
        await self._open(event.row_id)

    async def _open(self, part: str) -> None:
        if part == "support":
            self.console.deeds.act(_support())
        else:
            await self.console.open(self._view(part))

    def _view(self, part: str) -> View:
        """Loaded when it is opened."""
        if part == "checks":
            return ChecksView(self._health)
        if part == "settings":
            from console.screens.ops_settings import SettingsView  # noqa: PLC0415 (see above)

            return SettingsView()
        if part == "certificates":
            from console.screens.ops_certificates import CertificatesView  # noqa: PLC0415 (the same)

            return CertificatesView()
        if part == "backups":
            from console.screens.ops_backups import BackupsView  # noqa: PLC0415 (the same)

            return BackupsView()
        from console.screens import ops_running  # noqa: PLC0415 (the same)

        if part == "version":
            return ops_running.VersionView()
        return ops_running.DiagnosticsView() if part == "diagnostics" else ops_running.TasksView()


def _support() -> Action:
    return Action(
        key="B",
        title="Write the bundle",
        role="operator",
        argv=lambda values: ["support", "create", "--to", values["to"]],
        impact="Collects what is listed by `cic support list`, redacts it and writes it here. It"
        " is sent nowhere.",
        fields=(Field("to", "File", "path", default="support.tar.gz", required=True),),
        slow=True,
        done="The bundle is written. Look inside before it leaves.",
    )


def _cells(_row_id: str, row: Row) -> Sequence[Cell]:
    return Cell(row["part"]), row["state"], Cell(row["told"])
