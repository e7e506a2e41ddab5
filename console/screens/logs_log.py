"""The appliance's own log, followed."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from textual.timer import Timer

from appliance.wire.log_lines import LOG_LEVELS, LogLevel, LogLine
from console.cells import Cell, Column, Row
from console.client import AdminError, decoded
from console.screens.logs_tab import Tab
from console.screens.logs_words import level, log_cells, log_row, log_text
from console.screens.ops_words import Line, field
from console.widgets.dialogs import TextDialog
from console.widgets.live_table import LiveTable

_COLUMNS: Final = (
    Column("at", "AT", 8),
    Column("level", "LEVEL", 10),
    Column("logger", "FROM", 16, priority=3),
    Column("event", "EVENT", 30, grow=True),
)
LINES_MAX: Final = 5_000
_FIRST_LINES: Final = 500
_BEAT_S: Final = 0.2  # lines that come faster are shown together
_AGAIN_S: Final = 2.0  # before it is followed again
_SILENCE_S: Final = 60.0  # an empty line comes every 15 s


class LogTab(Tab):
    """Lines of a level and worse. `/` looks through what is here."""

    def __init__(self) -> None:
        table = LiveTable(
            _COLUMNS, log_cells, sort_key=lambda row_id, _row, _key: int(row_id), empty="Reading…"
        )
        super().__init__("log", table)
        self._level: LogLevel = "info"
        self._waiting: dict[str, Row] = {}
        self._anew = True  # the next lines are not the sequel of those that are shown
        self._trouble = ""
        self._wanted = False
        self._read_level: LogLevel | None = None  # what is followed now
        self._timer: Timer | None = None
        self._missed = 0

    def title(self) -> str:
        return f"{super().title()} of {self._level} and worse"

    def note(self) -> Cell:
        if self._trouble:
            return Cell("not followed", "bad")
        return self.following()

    def shown(self) -> None:
        self._wanted = True
        self._beat().resume()

    def left(self) -> None:
        self._wanted = False

    def turn_level(self) -> None:
        """The next level; behind the last one all of them again."""
        at = LOG_LEVELS.index(self._level)
        self._level = LOG_LEVELS[(at + 1) % len(LOG_LEVELS)]
        self.table.say_empty("Reading…")
        self.view.tell()

    def _beat(self) -> Timer:
        if self._timer is None:
            self._timer = self.view.set_interval(_BEAT_S, self._each_beat, pause=True)
        return self._timer

    def _each_beat(self) -> None:
        """Begin, end or change the reading, and show what came: never twice within a beat, so that
        keys that come fast do not end what has not begun."""
        console = self.view.console
        self._wanted = self._wanted and console.top is self.view
        if not self._wanted:
            self.view.workers.cancel_group(self.view, "log")
            self._read_level = None
            self._beat().pause()
        elif self._read_level != self._level:
            self._read_level, self._anew = self._level, True
            self.view.load(self._follow(self._level), name="log")
        elif self._waiting and not console.paused:
            self._show()

    def told(self, width: int) -> list[Line]:
        if self._trouble:
            return field("why", self._trouble, width, "bad")
        row = self.row()
        if row is None:
            return []
        head: list[Line] = [
            [Cell(f" {row['at']}  ", "dim"), level(row["level"]), Cell(f"  {row['logger']}", "dim")]
        ]
        lines = head + field("event", row["event"], width)
        if self._missed:
            lines.append([Cell(f" {self._missed:,} lines came too fast to be kept", "warn")])
        return lines

    def subject(self) -> Any:
        rows = [self.table.row(row_id) or {} for row_id in self.table.shown]
        return [_plain(row["line"]) for row in rows]

    async def open(self, row_id: str) -> None:
        row = self.table.row(row_id)
        if row is not None:
            self.view.console.push_screen(TextDialog("Log line", log_text(row["line"])))

    async def _follow(self, wanted: LogLevel) -> None:
        """Until nobody looks; broken off, it begins anew."""
        query = {"level": wanted, "lines": _FIRST_LINES, "follow": "true"}
        while True:
            try:
                lines = self.view.admin.lines("/v1/logs", query, silence_s=_SILENCE_S)
                async for line in lines:
                    self._trouble = ""
                    if line:
                        self._take(decoded(line, LogLine))
                    else:
                        self.table.say_empty(f"Nothing of {wanted} or worse was logged.")
            except AdminError as error:
                self._trouble = error.sentence
                self.table.say_empty("It cannot be read.")
                self.view.tell()
                if error.code == "not_permitted_role":
                    return
            await asyncio.sleep(_AGAIN_S)
            self._anew = True

    def _take(self, line: LogLine) -> None:
        self._missed += line.missed
        self._waiting[str(line.seq)] = log_row(line)
        while len(self._waiting) > LINES_MAX:
            del self._waiting[next(iter(self._waiting))]

    def _show(self) -> None:
        """Put what came into the table."""
        new, self._waiting = self._waiting, {}
        followed = self.at_end()
        if self._anew:
            self._anew = False
            self.table.replace(new)
            followed = True
        else:
            rows = self.table.row_ids
            over = max(0, len(rows) + len(new) - LINES_MAX)
            self.table.patch(new, rows[:over])
        if followed:
            self.go_to_end()
        self.view.tell()


def _plain(line: LogLine) -> dict[str, Any]:
    fields = {name: msgspec.json.decode(raw) for name, raw in line.fields.items()}
    return {"at": line.at, "level": line.level, "logger": line.logger, "event": line.event} | fields
