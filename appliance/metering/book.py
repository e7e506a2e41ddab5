"""The ledger's state in memory, and the transaction that carries a group of items to the disk.

Used by one thread, the writer's. `apply` prepares and writes, `committed` takes the prepared state
over; when the commit fails, the state in memory is what it was, like the file.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from appliance.domain.ids import RecordId, RequestId
from appliance.domain.usage import Measured, Operation, Status, TokenCount
from appliance.metering import chain
from appliance.metering.errors import BadRecord
from appliance.metering.records import Opening, Record, Settlement
from appliance.metering.schema import RECORD_COLUMNS, SLOT_NS, SUBJECT_COLUMNS

Subject = tuple[str, ...]  # the values of SUBJECT_COLUMNS

APPLIANCE_STOPPED: Final = "appliance_stopped"
# Combinations of tenant, key, model and so on that are remembered; beyond it, memory starts anew.
_SUBJECTS_MAX: Final = 65_536
# Rows of one INSERT. Each statement lets go of the interpreter's lock and must win it back, so few
# statements with many rows are worth much; 32 rows stay below the 999 variables of an old SQLite.
_ROWS: Final = 32

_PLACES: Final = "(" + ",".join("?" * len(RECORD_COLUMNS)) + ")"
_INSERT: Final = tuple(
    f"INSERT INTO records VALUES {','.join([_PLACES] * rows)}"  # noqa: S608 (only placeholders)
    for rows in range(_ROWS + 1)
)
_ADD_TO_SLOT: Final = """
INSERT INTO slots VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (slot, subject_no) DO UPDATE SET
  requests = requests + excluded.requests,
  input_tokens = input_tokens + excluded.input_tokens,
  output_tokens = output_tokens + excluded.output_tokens,
  cached_tokens = cached_tokens + excluded.cached_tokens,
  seq_hi = excluded.seq_hi
"""
_SUBJECT_IS: Final = " AND ".join(f"{name} = ?" for name in SUBJECT_COLUMNS)

_encoder = msgspec.json.Encoder()


class OpenLine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One opening as it stands in `openings.body`, a JSON list of these."""

    record_id: str
    request_id: str
    subject_no: int
    opened_at_ns: int
    prompt_estimate: int


OPEN_LINES: Final = msgspec.json.Decoder(list[OpenLine])


@dataclass(slots=True)
class Head:
    """The last record and the sums over all of them."""

    seq: int
    sha256: bytes
    input_tokens: int
    output_tokens: int
    cached_tokens: int


@dataclass(slots=True)
class _Slot:
    """What a group adds to one row of `slots`."""

    slot: int
    subject_no: int
    seq_lo: int
    seq_hi: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def row(self) -> tuple[int, ...]:
        return (
            self.slot,
            self.subject_no,
            self.requests,
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.seq_lo,
            self.seq_hi,
        )


@dataclass(slots=True)
class _Prepared:
    """What becomes true with the commit."""

    head: Head
    next_subject: int
    settled: list[str] = field(default_factory=list)  # ids of records
    opened: list[OpenLine] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)  # groups of openings that are no more
    subjects: dict[Subject, int] = field(default_factory=dict)
    slots: dict[tuple[int, int], "_Slot"] = field(default_factory=dict)


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
                    leftovers[line.record_id] = _aborted(connection, line, now_ns)
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
            # Rare: a client used a request id again, or a record was opened again after its end.
            # Take back what this group has inserted, look each one up, and insert again.
            connection.execute("DELETE FROM records WHERE seq > ?", (self.head.seq,))
            self._insert(connection, prepared, self._made_unique(connection, settlements))
        connection.executemany(_ADD_TO_SLOT, [slot.row() for slot in prepared.slots.values()])
        head = prepared.head
        connection.execute(
            "UPDATE head SET seq = ?, sha256 = ?, input_tokens = ?, output_tokens = ?,"
            " cached_tokens = ?",
            (head.seq, head.sha256, head.input_tokens, head.output_tokens, head.cached_tokens),
        )
        prepared.settled = [settlement.opening.record_id for settlement in settlements]
        self._drop_settled_groups(connection, prepared)

    def _insert(
        self, connection: sqlite3.Connection, prepared: _Prepared, settlements: list[Settlement]
    ) -> None:
        seq, before = self.head.seq, self.head.sha256
        slots: dict[tuple[int, int], _Slot] = {}
        values: list[object] = []
        rows = 0
        for settlement in settlements:
            seq += 1
            record = _record(seq, settlement)
            before = chain.link(before, chain.canonical(record))
            subject_no = self._subject(connection, prepared, settlement.opening)
            values += _row(record, subject_no, before)
            rows += 1
            if rows == _ROWS:
                connection.execute(_INSERT[rows], values)
                values, rows = [], 0
            place = (record.settled_at_ns // SLOT_NS, subject_no)
            slot = slots.get(place)
            if slot is None:
                slot = slots[place] = _Slot(*place, seq_lo=seq)
            slot.seq_hi = seq
            slot.requests += 1
            slot.input_tokens += record.input_tokens
            slot.output_tokens += record.output_tokens
            slot.cached_tokens += record.cached_tokens
        if rows:
            connection.execute(_INSERT[rows], values)
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
        subject = (
            opening.tenant_id,
            opening.tenant_name,
            opening.environment_id,
            opening.environment_name,
            opening.key_id,
            opening.key_name,
            opening.model_name,
            opening.model_digest,
            opening.deployment_id,
            opening.region,
            opening.operation._value_,
            opening.price_class,
        )
        known = self._subjects.get(subject) or prepared.subjects.get(subject)
        if known is not None:
            return known
        row = connection.execute(
            f"SELECT subject_no FROM subjects WHERE {_SUBJECT_IS}",  # noqa: S608 (constants)
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


def _record(seq: int, settlement: Settlement) -> Record:
    opening, tokens = settlement.opening, settlement.tokens
    if not 0 <= tokens.cached <= tokens.input or tokens.output < 0:
        raise BadRecord(
            f"{tokens} are no token counts (record {opening.record_id}).",
            next_step="Report this: it is a defect of the appliance.",
        )
    # `_value_` and not the enum itself: SQLite binds a plain str at once, a subclass by a search.
    return Record(
        chain.VERSION,
        seq,
        opening.record_id,
        opening.request_id,
        opening.tenant_id,
        opening.tenant_name,
        opening.environment_id,
        opening.environment_name,
        opening.key_id,
        opening.key_name,
        opening.model_name,
        opening.model_digest,
        opening.deployment_id,
        opening.region,
        opening.operation._value_,
        opening.price_class,
        settlement.node_name,
        settlement.status._value_,
        settlement.http_status,
        settlement.error_code,
        settlement.measured._value_,
        opening.prompt_estimate,
        tokens.input,
        tokens.output,
        tokens.cached,
        opening.opened_at_ns,
        settlement.settled_at_ns,
        settlement.latency_ms,
        settlement.first_token_ms,
    )


def _row(record: Record, subject_no: int, sha256: bytes) -> tuple[object, ...]:
    """The values of RECORD_COLUMNS."""
    return (
        record.seq,
        record.v,
        record.record_id,
        record.request_id,
        subject_no,
        record.node,
        record.status,
        record.http_status,
        record.error_code,
        record.measured,
        record.prompt_estimate,
        record.input_tokens,
        record.output_tokens,
        record.cached_tokens,
        record.opened_at_ns,
        record.settled_at_ns,
        record.latency_ms,
        record.first_token_ms,
        sha256,
    )


def _aborted(connection: sqlite3.Connection, line: OpenLine, now_ns: int) -> Settlement:
    """What is written for a request that the stop of the appliance cut off."""
    subject = connection.execute(
        f"SELECT {', '.join(SUBJECT_COLUMNS)} FROM subjects WHERE subject_no = ?",  # noqa: S608
        (line.subject_no,),
    ).fetchone()
    opening = Opening(
        record_id=RecordId(line.record_id),
        request_id=RequestId(line.request_id),
        opened_at_ns=line.opened_at_ns,
        tenant_id=subject[0],
        tenant_name=subject[1],
        environment_id=subject[2],
        environment_name=subject[3],
        key_id=subject[4],
        key_name=subject[5],
        model_name=subject[6],
        model_digest=subject[7],
        deployment_id=subject[8],
        region=subject[9],
        operation=Operation(subject[10]),
        price_class=subject[11],
        prompt_estimate=line.prompt_estimate,
    )
    return Settlement(
        opening=opening,
        status=Status.ABORTED,
        tokens=TokenCount(input=line.prompt_estimate),
        measured=Measured.ESTIMATED,
        http_status=499,
        error_code=APPLIANCE_STOPPED,
        node_name="",
        settled_at_ns=now_ns,
        latency_ms=0,
        first_token_ms=None,
    )
