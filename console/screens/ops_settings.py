"""Settings: values with their sources, what they mean and take; edited through the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult

from appliance.wire.settings import Setting, takes
from console.actions import Action, Field, plain
from console.cells import Cell, Column, Row
from console.screens.ops_words import field, settings
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel

_COLUMNS: Final = (
    Column("name", "SETTING", 32),
    Column("value", "VALUE", 14, grow=True),
    Column("source", "FROM", 11),
    Column("pending", "AFTER A START", 14, priority=2),
    Column("default", "DEFAULT", 12, priority=3),
)
# Their values may hold a password: never in a command line that others can list.
_BY_INPUT: Final = frozenset({"sync.proxy"})


class SettingsView(View):
    """Every setting; what is not a default is lit."""

    DEFAULT_CSS: ClassVar[str] = "SettingsView #told { height: 8; }"
    title = "Settings"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(_COLUMNS, _cells, sort_by="", empty="Reading…")
        self._told = Lines()

    def compose(self) -> ComposeResult:
        yield Panel("Settings", self._table, id="settings")
        yield Panel("What it means", self._told, id="told")

    def shown(self) -> None:
        self.load(self._read())

    async def _read(self) -> None:
        rows = await self.admin.get("/v1/settings", list[Setting])
        self._table.replace({row.name: msgspec.to_builtins(row) for row in rows})
        state, told = settings(rows)
        self.panel("#settings").entitle(
            f"Settings {len(rows)}", Cell(told, "warn" if state.tone == "warn" else "dim")
        )
        self._tell()

    def actions(self) -> Sequence[Action]:
        row = self._selected()
        return () if row is None else of_setting(row)

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    def _selected(self) -> Setting | None:
        row = self._table.row(self._table.current) if self._table.current else None
        return None if row is None else msgspec.convert(row, Setting)

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self._tell()
        self.selection_changed()

    def _tell(self) -> None:
        row, width = self._selected(), self.console.size.width
        if row is None:
            self._told.show([])
            return
        force = "after the next start" if row.restart else "at once"
        self._told.show(
            [
                *field("meaning", row.meaning.replace("`", ""), width),
                *field("takes", f"{takes(row)}; default {row.default}", width),
                *field("variable", f"{row.variable}, which goes before the file", width, "dim"),
                *field("in force", force, width, "dim"),
            ]
        )


def of_setting(row: Setting) -> list[Action]:
    """Edit it, or take it out of the file again. Pure."""
    waits = "In force after the next start." if row.restart else "In force at once."
    by_input = row.name in _BY_INPUT
    value = row.pending if row.pending is not None else row.value
    edit = Action(
        key="E",
        title="Edit",
        role="admin",
        argv=lambda values: [
            *("settings", "set", row.name),
            *(() if by_input else (values["value"],)),
        ],
        fields=(
            Field(
                "value",
                "Value",
                "secret" if by_input else "choice" if row.choices else "text",
                row.choices,
                default="" if by_input else value,
                required=True,
                hint=takes(row),
            ),
        ),
        stdin="value" if by_input else "",
        impact=f"{row.name}: {row.meaning.replace('`', '')} {waits}",
        done=f"{row.name} is written. {waits}",
    )
    if row.source == "default" and row.pending is None:
        return [edit]
    return [
        edit,
        Action(
            key="X",
            title="Unset",
            role="admin",
            argv=plain("settings", "unset", row.name),
            danger="confirm",
            impact=f"{row.name} has its default {row.default} again. {waits}",
            done=f"{row.name} is out of the file. {waits}",
        ),
    ]


def _cells(_row_id: str, row: Row) -> Sequence[Cell]:
    own = row["source"] != "default"
    return (
        Cell(row["name"]),
        Cell(row["value"], "plain" if own else "dim"),
        Cell(row["source"], "accent" if own else "dim"),
        Cell(f"▲ {row['pending']}", "warn") if row["pending"] is not None else Cell(""),
        Cell(row["default"], "dim"),
    )
