"""Reserved capacity: who was promised how much, how it is kept, and what is still free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from textual import on
from textual.app import ComposeResult

from appliance.wire.reservations import Capacity, Reservation
from console.actions import Action
from console.cells import Cell, Column, Row, Tone
from console.screens.reservation_actions import of_reservation, reserve, whose_it_is
from console.store import Changes, Store
from console.view import View
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import MISSING, clock_time, count, day_time, percent, state

_RESERVATIONS: Final = (
    Column("whose", "TENANT", 14, grow=True),
    Column("model", "MODEL", 12, grow=True),
    Column("rate", "TOK/s", 6, right=True),
    Column("state", "STATE", 11),
    Column("attained", "ATTAINED", 8, right=True),
    Column("waiting", "WAIT", 4, right=True),
    Column("until", "UNTIL", 16, priority=2),
    Column("promised", "PROMISED/min", 12, right=True, priority=4),
    Column("offered", "OFFERED/min", 11, right=True, priority=4),
    Column("delivered", "DELIVERED/min", 13, right=True, priority=4),
    Column("from", "FROM", 16, priority=5),
    Column("priority", "PRIO", 4, right=True, priority=3),
)
_CAPACITY: Final = (
    Column("model", "MODEL", 14, grow=True),
    Column("measured", "MEASURED", 8, right=True),
    Column("headroom", "HEADROOM", 8, right=True),
    Column("promisable", "PROMISABLE", 10, right=True, priority=2),
    Column("promised", "PROMISED", 8, right=True),
    Column("free", "FREE", 6, right=True),
)
_MINUTES: Final = (
    Column("at", "MINUTE", 8),
    Column("promised", "PROMISED", 10, right=True),
    Column("offered", "OFFERED", 10, right=True),
    Column("delivered", "DELIVERED", 10, right=True),
    Column("attained", "ATTAINED", 8, right=True),
)
_KEPT: Final = 95.0  # percent; less is a promise that slips
_ASK_EVERY: Final = 3  # Ticks


class ReservationsView(View):
    """Enter opens the minutes of one. `tenant` narrows it to that tenant's."""

    title = "reserved"

    def __init__(self, tenant: str = "", *, select: str | None = None) -> None:
        super().__init__()
        self._tenant = tenant
        self._wanted = select
        self._reserved = LiveTable(
            *(_RESERVATIONS, _reservation),
            sort_by="whose",
            sort_key=_key,
            empty="Nothing is reserved. N reserves tokens a second for a tenant.",
            id="reserved",
        )
        self._capacity = LiveTable(
            *(_CAPACITY, _room),
            sort_by="model",
            empty="Nothing is deployed.",
            id="capacity",
        )
        self._ticks = 0

    def compose(self) -> ComposeResult:
        yield Panel("Reserved capacity", self._reserved)
        yield Panel("What can be reserved, tokens/s", self._capacity)

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (asked for instead)
        self._ticks += 1
        if self._ticks % _ASK_EVERY == 0:
            self.shown()

    def shown(self) -> None:
        self.load(self._read(), name="reservations")

    async def _read(self) -> None:
        reserved = await self.admin.get("/v1/reservations", list[Reservation])
        capacity = await self.admin.get("/v1/capacity", list[Capacity])
        self._reserved.replace(
            {
                each.id: msgspec.to_builtins(each)
                for each in reserved
                if self._tenant in ("", each.tenant)
            }
        )
        self._capacity.replace({each.model: msgspec.to_builtins(each) for each in capacity})
        if self._wanted is not None:
            self._reserved.select(self._wanted)
            self._wanted = None

    def reveal(self, part: str) -> None:
        self._wanted = part
        self.shown()

    def actions(self) -> Sequence[Action]:
        current = self._reserved.current
        row = self._reserved.row(current) if current else None
        return (*(of_reservation(row) if row else ()), reserve(self._tenant, self._models()))

    def subject(self) -> Any:
        return [self._reserved.row(row_id) for row_id in self._reserved.shown]

    def _models(self) -> list[str]:
        """Those of which something was measured come first."""
        rows = [self._capacity.row(row_id) for row_id in self._capacity.shown]
        known = [row for row in rows if row]
        known.sort(key=lambda row: -int(row["free_tokens_per_s"]))
        return [str(row["model"]) for row in known]

    @on(LiveTable.Moved)
    def _moved(self) -> None:
        self.selection_changed()

    @on(LiveTable.Opened, "#reserved")
    async def _opened(self, event: LiveTable.Opened) -> None:
        await self.console.open(ReservationView(event.row_id))


class ReservationView(View):
    """One reservation, minute by minute."""

    def __init__(self, ref: str) -> None:
        super().__init__()
        self.title = "reservation"
        self._ref = ref
        self._row: Row | None = None
        self._minutes = LiveTable(
            *(_MINUTES, _minute),
            sort_by="at",
            descending=True,
            empty="No whole minute has passed since the appliance started.",
        )
        self._ticks = 0

    def compose(self) -> ComposeResult:
        yield Panel("Minutes, in tokens", self._minutes)

    def update(self, store: Store, changes: Changes) -> None:  # noqa: ARG002 (asked for instead)
        self._ticks += 1
        if self._ticks % _ASK_EVERY == 0:
            self.shown()

    def shown(self) -> None:
        self.load(self._read(), name="reservation")

    async def _read(self) -> None:
        row = await self.admin.get(f"/v1/reservations/{self._ref}", Reservation)
        self._row = msgspec.to_builtins(row)
        self._minutes.replace({each.at: msgspec.to_builtins(each) for each in row.minutes})
        word = "slipping" if row.slipping else row.state
        self.panel().entitle(
            f"{whose_it_is(self._row)}: {row.tokens_per_s:,} tokens/s of {row.model}, {word}"
        )
        self.selection_changed()

    def actions(self) -> Sequence[Action]:
        return of_reservation(self._row) if self._row and self._row["state"] != "ended" else ()

    def subject(self) -> Any:
        return self._row


def _reservation(_row_id: str, row: Row) -> list[Cell]:
    minute = row.get("attained") or {}
    return [
        Cell(whose_it_is(row)),
        Cell(str(row["model"])),
        Cell(count(row["tokens_per_s"])),
        state("slipping" if row.get("slipping") else row["state"]),
        _attained(minute),
        Cell(count(row["waiting"]), "warn" if row["waiting"] else "plain"),
        Cell(day_time(row["ends_at"]) if row["ends_at"] else "no end", "dim"),
        Cell(count(minute.get("promised"))),
        Cell(count(minute.get("offered"))),
        Cell(count(minute.get("delivered"))),
        Cell(day_time(row["starts_at"]), "dim"),
        Cell(count(row["priority"])),
    ]


def _room(_row_id: str, row: Row) -> list[Cell]:
    return [
        Cell(str(row["model"])),
        Cell(count(row["measured_tokens_per_s"])),
        Cell(percent(row["headroom_percent"])),
        Cell(count(row["promisable_tokens_per_s"])),
        Cell(count(row["promised_tokens_per_s"])),
        Cell(count(row["free_tokens_per_s"]), "good" if row["free_tokens_per_s"] else "dim"),
    ]


def _minute(_row_id: str, row: Row) -> list[Cell]:
    figures = [Cell(count(row[name])) for name in ("promised", "offered", "delivered")]
    return [Cell(clock_time(row["at"])), *figures, _attained(row)]


def _attained(minute: Row) -> Cell:
    share = minute.get("attained_percent")
    if share is None:
        return Cell(MISSING, "dim")
    tone: Tone = "good" if share >= _KEPT else "bad"
    return Cell(percent(share), tone)


def _key(_row_id: str, row: Row, column: str) -> Any:
    minute = row.get("attained") or {}
    return {
        "whose": whose_it_is(row),
        "rate": row["tokens_per_s"],
        "attained": minute.get("attained_percent"),
        "until": row["ends_at"],
        "from": row["starts_at"],
    }.get(column, row.get(column, minute.get(column)))
