"""Backups: those that are there, one more, a trial restore; and how one is put back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult

from appliance.wire.backups import Backup, BackupList
from console.actions import Action, Field, Values
from console.cells import Cell, Column, Row
from console.screens.ops_words import backups, field
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import ago, count, day_time, or_missing, size, until

_COLUMNS: Final = (
    Column("made_at", "MADE", 16),
    Column("age", "AGE", 7, right=True),
    Column("size", "SIZE", 6, right=True),
    Column("opened", "OPENED BY", 12, priority=2),
    Column("product", "VERSION", 9, priority=3),
    Column("file", "FILE", 20, grow=True),
)


class BackupsView(View):
    """Of the folder that the settings name."""

    DEFAULT_CSS: ClassVar[str] = "BackupsView #told { height: 11; }"
    title = "Backups"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(_COLUMNS, self._cells, sort_by="", empty="Reading…")
        self._told = Lines()
        self._list: BackupList | None = None

    def compose(self) -> ComposeResult:
        yield Panel("Backups", self._table, id="backups")
        yield Panel("About it", self._told, id="told")

    def shown(self) -> None:
        self.load(self._read())

    async def _read(self) -> None:
        found = await self.admin.get("/v1/backups", BackupList)
        self._list = found
        self._table.say_empty(f"No backups in {found.folder} yet. B makes one.")
        self._table.replace({row.path: msgspec.to_builtins(row) for row in found.backups})
        state, told = backups(found, self.console.now())
        note = Cell(told, "dim" if state.tone == "good" else state.tone)
        self.panel("#backups").entitle(f"Backups {len(found.backups)}", note)
        self._tell()
        self.selection_changed()

    def actions(self) -> Sequence[Action]:
        row = self._selected()
        folder = "" if self._list is None else self._list.folder
        key_file = str(self.console.home.backup_key_file)
        of_row = [] if row is None else [verify(row), restore(row, key_file)]
        return (*of_row, create(folder), key_out())

    def subject(self) -> Any:
        return None if self._list is None else msgspec.to_builtins(self._list)

    def _selected(self) -> Backup | None:
        row = self._table.row(self._table.current) if self._table.current else None
        return None if row is None else msgspec.convert(row, Backup)

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self._tell()
        self.selection_changed()

    def _tell(self) -> None:
        row, found, width = self._selected(), self._list, self.console.size.width
        if found is None:
            return
        due = "only when asked" if found.due_at is None else until(found.due_at, self.console.now())
        lines = field("next", due, width)
        if found.last_error:
            lines += field("last error", found.last_error, width, "bad")
        if found.next_step:
            lines += field("do", found.next_step.replace("`", ""), width, "warn")
        if row is not None:
            lines += field("file", row.path, width)
            if row.records is not None:
                inside = f"{count(row.records)} records, newest manifest {or_missing(row.newest)}"
                lines += field("holds", inside, width)
        self._told.show(lines + field("put back", put_back(row), width, "dim"))

    def _cells(self, _row_id: str, row: Row) -> Sequence[Cell]:
        return (
            Cell(day_time(row["made_at"])),
            Cell(ago(row["made_at"], self.console.now())),
            Cell(size(row["size_bytes"])),
            Cell(f"key {row['key_id'][:8]}" if row["key_id"] else "passphrase", "dim"),
            Cell(row["product"], "dim"),
            Cell(PurePath(row["path"]).name),
        )


def put_back(row: Backup | None) -> str:
    """Over a site that runs nothing is put. Pure."""
    file = "FILE" if row is None else PurePath(row.path).name
    return (
        "R puts it into another home. Over this one: stop its service, then"
        f" cic backup restore {file} --replace; what was there is kept beside."
    )


def _by_input(values: Values) -> list[str]:
    return ["--passphrase-file", "-"] if values.get("passphrase") else []


def create(folder: str) -> Action:
    return Action(
        key="B",
        title="New backup",
        role="operator",
        argv=lambda values: [
            *("backup", "create"),
            *(["--to", values["to"]] if values["to"] not in {"", folder} else []),
            *_by_input(values),
        ],
        fields=(
            Field("to", "Folder", "path", default=folder, hint="On another disk, if there is one."),
            Field(
                "passphrase",
                "Passphrase",
                "secret",
                hint="Empty: the site's backup key opens it.",
            ),
        ),
        stdin="passphrase",
        impact="Copies settings, tenants, keys, ledger and secrets while the site serves,"
        " encrypted. Weights of models are not in it.",
        slow=True,
        done="The backup is made.",
    )


def verify(row: Backup) -> Action:
    asked = (Field("passphrase", "Passphrase", "secret", required=True),)
    return Action(
        key="V",
        title="Verify",
        role="admin",
        argv=lambda values: ["backup", "verify", row.path, *_by_input(values)],
        fields=() if row.key_id else asked,
        stdin="" if row.key_id else "passphrase",
        impact="Unpacks it aside, opens every database and recomputes every chain.",
        slow=True,
        done=f"The backup of {day_time(row.made_at)} is sound.",
    )


def restore(row: Backup, key_file: str) -> Action:
    """Into another home: this one runs. `key_file` opens what the site's own key sealed."""
    asked = (Field("passphrase", "Passphrase", "secret", required=True),)
    to = Field("to", "New home", "path", required=True, hint="An empty or new folder.")
    return Action(
        key="R",
        title="Restore",
        role="admin",
        argv=lambda values: [
            *("--home", values["to"], "backup", "restore", row.path),
            *(("--key-file", key_file) if row.key_id else _by_input(values)),
        ],
        fields=(to,) if row.key_id else (to, *asked),
        stdin="" if row.key_id else "passphrase",
        impact=f"Puts the site as of {day_time(row.made_at)} into a home of its own; this one goes"
        " on untouched. Start it there only when this one is stopped: two of one site are a fork.",
        slow=True,
        done="Restored. Start it with `cic --home` and that folder, when this one is stopped.",
    )


def key_out() -> Action:
    return Action(
        key="K",
        title="Key out",
        role="admin",
        argv=lambda values: ["backup", "key", "--to", values["to"]],
        fields=(
            Field("to", "New file", "path", required=True, hint="On a stick, kept elsewhere."),
        ),
        impact="Copies the key that opens this site's backups. Without it, and without a"
        " passphrase, no backup can be put back: none of them has it.",
        done="The key is written. Keep it elsewhere.",
    )
