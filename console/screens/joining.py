"""Machines that become nodes: their tokens, and the nodes as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.widget import Widget

from appliance.wire.node_tokens import NodeCertificate, NodeToken
from appliance.wire.stream import Topic
from console.actions import Action
from console.cells import Cell, Column, Row
from console.screens.fleet_actions import new_token, of_token
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Lines, Panel
from console.words import MISSING, ago, day_time, or_missing, plural, state, until

_TOKENS: Final = (
    Column("id", "TOKEN", 14, grow=True),
    Column("state", "STATE", 10),
    Column("node", "FOR", 12),
    Column("expires", "LEFT", 7, right=True),
    Column("by", "MADE BY", 12, priority=2),
    Column("used", "USED BY", 12, priority=2),
)
_CERTIFICATES: Final = (
    Column("node", "NODE", 12, grow=True),
    Column("state", "STATE", 10),
    Column("expires", "EXPIRES", 16),
    Column("serial", "SERIAL", 16, priority=2),
)
_ASK_EVERY: Final = 2  # Ticks
_NEWEST: Final = 4


class TokensView(View):
    """Tokens above; below who arrives, stage by stage, and the certificates of nodes."""

    title = "join tokens"
    DEFAULT_CSS: ClassVar[str] = """
    TokensView #tokens { height: 2fr; }
    TokensView #arriving { height: 7; }
    TokensView #certificates { height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._tokens = LiveTable(
            _TOKENS, self._token_cells, sort_by="", empty="No tokens yet. N makes one."
        )
        self._certificates = LiveTable(
            _CERTIFICATES, _certificate_cells, sort_by="node", empty="No node has joined over TLS."
        )
        self._arriving = Lines()
        self._ticks = 0

    def compose(self) -> ComposeResult:
        yield Panel("1 Join tokens", self._tokens, id="tokens")
        yield Panel("Arriving", self._arriving, id="arriving")
        yield Panel("2 Certificates of nodes", self._certificates, id="certificates")

    def home(self) -> Widget | None:
        return self._tokens

    def topics(self) -> frozenset[Topic]:
        return frozenset({"nodes", "gpus"})

    def update(self, store: Store, changes: Changes) -> None:
        if changes.touches("nodes") or changes.touches("gpus"):
            self._arriving.show(self._arrivals(store))
        self._ticks += 1
        if self._ticks % _ASK_EVERY == 0:
            self.shown()

    def shown(self) -> None:
        self.load(self._read(), name="tokens")

    async def _read(self) -> None:
        tokens = await self.admin.get("/v1/node-tokens", list[NodeToken])
        certificates = await self.admin.get("/v1/node-certificates", list[NodeCertificate])
        newest = sorted(tokens, key=lambda token: token.created_at, reverse=True)
        self._tokens.replace({token.id: msgspec.to_builtins(token) for token in newest})
        self._certificates.replace(
            {each.serial: msgspec.to_builtins(each) for each in certificates}
        )

    def _arrivals(self, store: Store) -> list[list[Cell]]:
        """The nodes that came last, each with how far it is."""
        nodes = sorted(
            store.table("nodes").values(), key=lambda row: str(row.get("created_at")), reverse=True
        )
        lines = [self._arrival(row, store) for row in nodes[:_NEWEST]]
        return lines or [[Cell("  Nobody yet. What N shows is typed on the machine.", "dim")]]

    def _arrival(self, row: Row, store: Store) -> list[Cell]:
        gpus = sum(gpu.get("node_id") == row.get("id") for gpu in store.table("gpus").values())
        heard = row.get("last_seen_at") is not None
        engines = row.get("engines") or ()
        stages = (
            ("known", True),
            ("heard", heard),
            (", ".join(engines) if engines else "engines", bool(engines)),
            (plural(gpus, "GPU") if gpus else "no GPUs", heard),
            (str(row.get("state")), row.get("state") == "ready"),
        )
        cells = [Cell(f"  {row.get('name', ''):<14} ")]
        for text, done in stages:
            cells.append(Cell(f"{'✓' if done else '○'} {text}  ", "good" if done else "dim"))
        cells.append(Cell(ago(row.get("created_at"), self.console.now()) + " ago", "dim"))
        return cells

    def actions(self) -> Sequence[Action]:
        row = self._tokens.row(self._tokens.current) if self._tokens.current else None
        return (*(of_token(row) if row else ()), new_token())

    def subject(self) -> Any:
        return [self._tokens.row(row_id) for row_id in self._tokens.shown]

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    def _token_cells(self, _row_id: str, row: Row) -> list[Cell]:
        unused = row.get("state") == "unused"
        return [
            Cell(str(row.get("id", ""))),
            state(row.get("state")),
            Cell(or_missing(row.get("node"))),
            Cell(until(row.get("expires_at"), self.console.now()) if unused else MISSING),
            Cell(str(row.get("created_by", ""))),
            Cell(or_missing(row.get("used_by"))),
        ]


def _certificate_cells(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(str(row.get("node", ""))),
        state(row.get("state")),
        Cell(day_time(row.get("expires_at"))),
        Cell(str(row.get("serial", "")), "dim"),
    ]
