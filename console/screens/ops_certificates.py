"""Certificates: the site's CA, the appliance's own, its nodes'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult

from appliance.wire.certificates import SiteCertificate
from console.actions import Action, Field, plain
from console.cells import Cell, Column, Row
from console.screens.ops_words import certificate_state, certificates, field
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import count, day_time, or_missing

_COLUMNS: Final = (
    Column("kind", "KIND", 9),
    Column("name", "NAME", 14, grow=True),
    Column("state", "STATE", 10),
    Column("expires", "EXPIRES", 16),
    Column("days", "DAYS", 5, right=True),
    Column("serial", "SERIAL", 20, priority=3),
)


class CertificatesView(View):
    """Those that newer ones replaced are left out."""

    DEFAULT_CSS: ClassVar[str] = "CertificatesView #told { height: 9; }"
    title = "Certificates"

    def __init__(self) -> None:
        super().__init__()
        self._table = LiveTable(_COLUMNS, _cells, sort_by="", empty="Reading…")
        self._told = Lines()

    def compose(self) -> ComposeResult:
        yield Panel("Certificates", self._table, id="certificates")
        yield Panel("What it is for", self._told, id="told")

    def shown(self) -> None:
        self.load(self._read())

    async def _read(self) -> None:
        found = await self.admin.get("/v1/certificates", list[SiteCertificate])
        rows = [row for row in found if row.state != "replaced"]
        self._table.replace(
            {f"{at:05} {row.name}": msgspec.to_builtins(row) for at, row in enumerate(rows)}
        )
        state, told = certificates(rows)
        note = Cell(told, "dim" if state.tone == "good" else state.tone)
        self.panel("#certificates").entitle(f"Certificates {len(rows)}", note)
        self._tell()

    def actions(self) -> Sequence[Action]:
        row = self._selected()
        return () if row is None or row["kind"] != "node" else of_node(row["name"])

    def subject(self) -> Any:
        return [self._table.row(row_id) for row_id in self._table.shown]

    def _selected(self) -> Row | None:
        return self._table.row(self._table.current) if self._table.current else None

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self._tell()
        self.selection_changed()

    def _tell(self) -> None:
        row, width = self._selected(), self.console.size.width
        if row is None:
            self._told.show([])
            return
        self._told.show(
            [
                *field("for", row["used_for"], width),
                *field("renewal", row["renewal"].replace("`", ""), width),
                *field("subject", or_missing(row["subject"]), width, "dim"),
                *field("serial", or_missing(row["serial"]), width, "dim"),
                *field("SHA-256", or_missing(row["fingerprint"]), width, "dim"),
            ]
        )


def of_node(name: str) -> list[Action]:
    """What can be done about a node's certificate. Pure."""
    return [
        Action(
            key="X",
            title="Revoke",
            role="admin",
            argv=plain("node", "revoke", name, "--yes"),
            danger="typed",
            type_this=name,
            impact=f"Denies every certificate of {name} at once: its engines get no more requests"
            " until it joins again with a new token.",
            done=f"Every certificate of {name} is denied.",
        ),
        Action(
            key="N",
            title="New token",
            role="admin",
            argv=lambda values: ["node", "token", "create", "--node", name, "--ttl", values["ttl"]],
            fields=(Field("ttl", "Good for", default="1h", hint="30m, 1h, 7d"),),
            impact=f"With it {name} joins again, once. The command to type there is shown once.",
            shown_once="command",
        ),
    ]


def _cells(_row_id: str, row: Row) -> Sequence[Cell]:
    return (
        Cell(row["kind"]),
        Cell(row["name"]),
        certificate_state(row["state"]),
        Cell(day_time(row["expires_at"])),
        Cell(count(row["days_left"])),
        Cell(or_missing(row["serial"]), "dim"),
    )
