"""The ledger's state in memory, and the transaction that carries a group of items to the disk.

Used by one thread, the writer's. `apply` prepares and writes, `committed` takes the prepared state
over; when the commit fails, the state in memory is what it was, like the file.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from appliance.domain.ids import RequestId
from appliance.metering import chain
from appliance.metering.records import Opening, Settlement
from appliance.metering.rows import (
    ADD_TO_SLOT,
    INSERT,
    OPEN_LINES,
    ROWS_MAX,
    SUBJECT_IS,
    OpenLine,
    Slot,
    Subject,
    aborted,
    record_of,
    row_of,
    subject_of,
)
from appliance.metering.schema import SLOT_NS
from appliance.wire.records import canonical

# Combinations of tenant, key, model and so on that are remembered; beyond it, memory starts anew.
_SUBJECTS_MAX: Final = 65_536

_encoder = msgspec.json.Encoder()


@dataclass(slots=True)
class Head:
    """The last record and the sums over all of them."""

    seq: int
    sha256: bytes
    input_tokens: int
    output_tokens: int
    cached_tokens: int


@dataclass(slots=True)
class _Prepared:
    """What becomes true with the commit."""

    head: Head
    next_subject: int
    settled: list[str] = field(default_factory=list)  # ids of records
    opened: list[OpenLine] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)  # groups of openings that are no more
    subjects: dict[Subject, int] = field(default_factory=dict)
    slots: dict[tuple[int, int], Slot] = field(default_factory=dict)


class Book:
    """Openings and settlements in, rows out. Numbers and hashes are given here."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        row = connection.execute(
            "SELECT seq, sha256, input_tokens, output_tokens, cached_tokens FROM head"
        ).fetchone()
        self.head = Head(*row)
        self._group_no: int = connection.execute(
            "SELECT coalesce(max(group_no), 0) + 1 FROM openings"
        ).fetchone()[0]
        self._next_subject: int = connection.execute(
            "SELECT coalesce(max(subject_no), 0) + 1 FROM subjects"
        ).fetchone()[0]
        self._open: dict[str, int] = {}  # record id -> the group of its opening
        self._group_sizes: dict[int, int] = {}  # group -> openings not yet settled
        self._subjects: dict[Subject, int] = {}
        self._prepared: _Prepared | None = None

    @property
    def open_count(self) -> int:
        return len(self._open)

    def apply(self, connection: sqlite3.Connection, items: Iterable[Opening | Settlement]) -> None:
        """Write a group inside the caller's transaction. Beginning or settling twice is nothing."""
        openings: dict[str, Opening] = {}
        settlements: dict[str, Settlement] = {}
        for item in items:
            if type(item) is Settlement:
                record_id = item.opening.record_id
                if record_id in settlements:
                    continue
                opened = openings.pop(record_id, None) is not None or record_id in self._open
                if not opened and self._exists(connection, "record_id", record_id):
                    continue
                settlements[record_id] = item
            elif type(item) is Opening:
                record_id = item.record_id
                if record_id not in self._open and record_id not in settlements:
                    openings[record_id] = item
        prepared = _Prepared(self.head, self._next_subject)
        self._prepared = prepared
        if settlements:
            self._settle(connection, prepared, list(settlements.values()))
        if openings:
            self._begin(connection, prepared, openings.values())

    def committed(self) -> None:
        """Take over what the last `apply` prepared: its transaction is on the disk."""
        prepared = self._prepared
        if prepared is None:
            return
        self._prepared = None
        self.head = prepared.head
        sizes = self._group_sizes
        for record_id in prepared.settled:
            group_no = self._open.pop(record_id, None)
            if group_no is not None:
                sizes[group_no] -= 1
        for group_no in prepared.emptied:
            del sizes[group_no]
        if prepared.opened:
            for line in prepared.opened:
                self._open[line.record_id] = self._group_no
            sizes[self._group_no] = len(prepared.opened)
            self._group_no += 1
        if prepared.subjects:
            if len(self._subjects) > _SUBJECTS_MAX:
                self._subjects.clear()
            self._subjects.update(prepared.subjects)
            self._next_subject = prepared.next_subject

    def recover(self, connection: sqlite3.Connection, now_ns: int) -> int:
        """Settle as aborted whatever was open when the appliance stopped; returns how many.

        Inside the caller's transaction. Nobody knows what such a request's client received, so it
        is charged the estimate of its prompt and no output.
        """
        leftovers: dict[str, Settlement] = {}
        for (body,) in connection.execute("SELECT body FROM openings ORDER BY group_no"):
            for line in OPEN_LINES.decode(body):
                if line.record_id not in leftovers and not self._exists(
                    connection, "record_id", line.record_id
                ):
                    leftovers[line.record_id] = aborted(connection, line, now_ns)
        self.apply(connection, leftovers.values())
        connection.execute("DELETE FROM openings")
        return len(leftovers)

    def _begin(
        self, connection: sqlite3.Connection, prepared: _Prepared, openings: Iterable[Opening]
    ) -> None:
        lines = [
            OpenLine(
                opening.record_id,
                opening.request_id,
                self._subject(connection, prepared, opening),
                opening.opened_at_ns,
                opening.prompt_estimate,
            )
            for opening in openings
        ]
        connection.execute(
            "INSERT INTO openings VALUES (?, ?)", (self._group_no, _encoder.encode(lines))
        )
        prepared.opened = lines

    def _settle(
        self, connection: sqlite3.Connection, prepared: _Prepared, settlements: list[Settlement]
    ) -> None:
        try:
            self._insert(connection, prepared, settlements)
        except sqlite3.IntegrityError:
            if self._left_behind(connection):
                raise  # what stands behind our head is somebody else's, and stays
            # Rare: a client used a request id again, or a record was opened again after its end.
            # Take back what this group has inserted, look each one up, and insert again.
            connection.execute("DELETE FROM records WHERE seq > ?", (self.head.seq,))
            self._insert(connection, prepared, self._made_unique(connection, settlements))
        connection.executemany(ADD_TO_SLOT, [slot.row() for slot in prepared.slots.values()])
        head = prepared.head
        connection.execute(
            "UPDATE head SET seq = ?, sha256 = ?, input_tokens = ?, output_tokens = ?,"
            " cached_tokens = ?",
            (head.seq, head.sha256, head.input_tokens, head.output_tokens, head.cached_tokens),
        )
        prepared.settled = [settlement.opening.record_id for settlement in settlements]
        self._drop_settled_groups(connection, prepared)

    def _left_behind(self, connection: sqlite3.Connection) -> bool:
        """Whether the file's ledger has gone on without this book."""
        (seq,) = connection.execute("SELECT seq FROM head").fetchone()
        return bool(seq != self.head.seq)

    def _insert(
        self, connection: sqlite3.Connection, prepared: _Prepared, settlements: list[Settlement]
    ) -> None:
        seq, before = self.head.seq, self.head.sha256
        slots: dict[tuple[int, int], Slot] = {}
        values: list[object] = []
        rows = 0
        for settlement in settlements:
            seq += 1
            record = record_of(seq, settlement)
            before = chain.link(before, canonical(record))
            subject_no = self._subject(connection, prepared, settlement.opening)
            values += row_of(record, subject_no, before)
            rows += 1
            if rows == ROWS_MAX:
                connection.execute(INSERT[rows], values)
                values, rows = [], 0
            place = (record.settled_at_ns // SLOT_NS, subject_no)
            slot = slots.get(place)
            if slot is None:
                slot = slots[place] = Slot(*place, seq_lo=seq)
            slot.seq_hi = seq
            slot.requests += 1
            slot.input_tokens += record.input_tokens
            slot.output_tokens += record.output_tokens
            slot.cached_tokens += record.cached_tokens
        if rows:
            connection.execute(INSERT[rows], values)
        prepared.slots = slots
        head = self.head
        prepared.head = Head(
            seq,
            before,
            head.input_tokens + sum(slot.input_tokens for slot in slots.values()),
            head.output_tokens + sum(slot.output_tokens for slot in slots.values()),
            head.cached_tokens + sum(slot.cached_tokens for slot in slots.values()),
        )

    def _made_unique(
        self, connection: sqlite3.Connection, settlements: list[Settlement]
    ) -> list[Settlement]:
        """The settlements that have no record yet, each with a request id that is free."""
        taken: set[str] = set()
        unique: list[Settlement] = []
        for settlement in settlements:
            opening = settlement.opening
            if self._exists(connection, "record_id", opening.record_id):
                continue
            request_id: str = opening.request_id
            while request_id in taken or self._exists(connection, "request_id", request_id):
                request_id = f"{request_id}~{opening.record_id}"
            taken.add(request_id)
            if request_id != opening.request_id:
                opening = msgspec.structs.replace(opening, request_id=RequestId(request_id))
                settlement = msgspec.structs.replace(settlement, opening=opening)  # noqa: PLW2901
            unique.append(settlement)
        return unique

    def _drop_settled_groups(self, connection: sqlite3.Connection, prepared: _Prepared) -> None:
        """Delete the rows of `openings` whose every request has settled with this group."""
        left: dict[int, int] = {}
        for record_id in prepared.settled:
            group_no = self._open.get(record_id)
            if group_no is not None:
                left[group_no] = left.get(group_no, self._group_sizes[group_no]) - 1
        prepared.emptied = [group_no for group_no, count in left.items() if count == 0]
        if prepared.emptied:
            connection.executemany(
                "DELETE FROM openings WHERE group_no = ?", [(no,) for no in prepared.emptied]
            )

    def _subject(
        self, connection: sqlite3.Connection, prepared: _Prepared, opening: Opening
    ) -> int:
        subject = subject_of(opening)
        known = self._subjects.get(subject) or prepared.subjects.get(subject)
        if known is not None:
            return known
        row = connection.execute(
            f"SELECT subject_no FROM subjects WHERE {SUBJECT_IS}",  # noqa: S608 (constants)
            subject,
        ).fetchone()
        if row is not None:
            number = int(row[0])
        else:
            number = prepared.next_subject
            prepared.next_subject += 1
            connection.execute(
                f"INSERT INTO subjects VALUES ({','.join('?' * (1 + len(subject)))})",  # noqa: S608
                (number, *subject),
            )
        prepared.subjects[subject] = number
        return number

    @staticmethod
    def _exists(connection: sqlite3.Connection, column: str, value: str) -> bool:
        found = connection.execute(
            f"SELECT 1 FROM records WHERE {column} = ?",  # noqa: S608 (two constant names)
            (value,),
        ).fetchone()
        return found is not None
