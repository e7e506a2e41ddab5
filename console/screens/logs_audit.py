"""Who changed what: the audit, what each change was, and whether its chain holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec
from textual.app import ComposeResult
from textual.widget import Widget

from appliance.wire.admin import AuditEntry
from console.actions import Action, plain
from console.cells import Cell, Column
from console.client import AdminError, decoded
from console.screens.logs_tab import Tab
from console.screens.logs_words import audit_cells, audit_row, change_of, differences, same
from console.screens.ops_words import Line, field
from console.view import View
from console.widgets.detail import Detail, Fact
from console.widgets.live_table import LiveTable
from console.widgets.panel import Panel
from console.words import MISSING, plural

_COLUMNS: Final = (
    Column("seq", "SEQ", 6, right=True),
    Column("at", "AT", 16, priority=2),
    Column("who", "WHO", 12),
    Column("action", "ACTION", 14),
    Column("kind", "KIND", 11, priority=2),
    Column("name", "NAME", 12, grow=True),
    Column("id", "ID", 28, priority=3),
)
ENTRIES_MAX: Final = 5_000


class AuditTab(Tab):
    """The newest entries, the newest first. Enter shows what one changed."""

    def __init__(self) -> None:
        super().__init__(
            "audit",
            LiveTable(
                _COLUMNS,
                audit_cells,
                sort_key=lambda _row_id, row, column: row[column],
                sort_by="seq",
                descending=True,
                empty="Reading…",
            ),
        )
        self._newest = 0
        self._only = ""

    def note(self) -> Cell:
        if self._only:
            return Cell("b o again, or Esc: all", "dim")
        return Cell("Enter what it changed  V verify the chain", "dim")

    def shown(self) -> None:
        self.view.load(self._read(), name="audit")

    def only(self, column: str) -> None:
        """Only entries with what stands in this column under the cursor; again: all."""
        row = self.row()
        wanted = "" if self._only or row is None else str(row[column])
        self._only = wanted
        self.table.show_only(wanted)
        self.view.tell()

    def told(self, width: int) -> list[Line]:
        row = self.row()
        if row is None:
            return field("it is", "Every change of the site, each bound to the one before.", width)
        entry: AuditEntry = row["entry"]
        head = f"{entry.actor} {entry.action} {entry.object_kind} {entry.object_name}".rstrip()
        return field("who", f"{head}, {entry.at}", width, "dim") + field(
            "change", change_of(entry), width
        )

    def subject(self) -> Any:
        rows = [self.table.row(row_id) or {} for row_id in self.table.shown]
        return [msgspec.to_builtins(row["entry"]) for row in rows]

    def actions(self) -> Sequence[Action]:
        return (
            Action(
                key="V",
                title="Verify the chain",
                role="viewer",
                argv=plain("audit", "verify"),
                slow=True,
                done="The chain of the audit holds, from its first entry to its last.",
            ),
        )

    async def open(self, row_id: str) -> None:
        row = self.table.row(row_id)
        if row is not None:
            await self.view.console.open(EntryView(row["entry"]))

    async def _read(self) -> None:
        """What is new since the last reading; of many, the newest."""
        kept: deque[bytes] = deque(maxlen=ENTRIES_MAX)
        try:
            async for line in self.view.admin.lines("/v1/audit", {"since": self._newest}):
                if line:
                    kept.append(line)
        except AdminError as error:
            self.table.say_empty(error.sentence)
            raise
        entries = [decoded(line, AuditEntry) for line in kept]
        self.table.say_empty("Nothing was changed yet.")
        if entries:
            over = max(0, len(self.table.row_ids) + len(entries) - ENTRIES_MAX)
            oldest = sorted(self.table.row_ids, key=int)[:over]
            first = not self._newest
            self._newest = entries[-1].seq
            self.table.patch({str(entry.seq): audit_row(entry) for entry in entries}, oldest)
            if first and self.table.shown:
                self.table.select(self.table.shown[0])
        self.view.tell()
        self.view.selection_changed()


class EntryView(View):
    """One entry: what was, and what is since."""

    DEFAULT_CSS: ClassVar[str] = "EntryView #facts { height: 10; }"

    def __init__(self, entry: AuditEntry) -> None:
        super().__init__()
        self.title = f"entry {entry.seq}"
        self._entry = entry
        self._facts = Detail()
        self._changes = Detail()

    def compose(self) -> ComposeResult:
        yield Panel(f"Entry {self._entry.seq}", self._facts, id="facts")
        yield Panel("What it changed", self._changes, id="changes")

    def home(self) -> Widget | None:
        return self._changes

    def shown(self) -> None:
        entry = self._entry
        self._facts.show(
            [
                ("at", entry.at, "plain"),
                ("who", entry.actor, "plain"),
                ("action", entry.action, "plain"),
                ("kind", entry.object_kind, "plain"),
                ("name", entry.object_name or MISSING, "plain"),
                ("id", entry.object_id or MISSING, "dim"),
                ("chain", entry.sha256, "dim"),
            ]
        )
        self._changes.show(facts_of(entry))
        count = len(list(differences(entry.before, entry.after)))
        self.panel("#changes").entitle(f"What it changed: {plural(count, 'value')}")

    def subject(self) -> Any:
        return msgspec.to_builtins(self._entry)


def facts_of(entry: AuditEntry) -> list[Fact]:
    """Each value that differs: `- was` and `+ is`, by sign as well as by colour."""
    facts: list[Fact] = []
    for name, was, now in differences(entry.before, entry.after):
        label = name
        if was:
            facts.append((label, f"- {was}", "bad"))
            label = ""
        if now or not was:
            facts.append((label, f"+ {now}" if now else MISSING, "good" if now else "dim"))
    unchanged = same(entry.before, entry.after)
    if unchanged:
        facts.append(("", f"{plural(unchanged, 'other value')} stayed as it was", "dim"))
    return facts or [("", "Nothing is told with it.", "dim")]
