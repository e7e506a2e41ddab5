"""Whether a ledger is what it claims: nothing missing, nothing twice, nothing changed."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from appliance.domain.usage import Measured, Status
from appliance.metering import chain
from appliance.metering.rows import OPEN_LINES
from appliance.metering.schema import RECORD_SELECT, SLOT_NS
from appliance.wire.records import VERSION, Record, canonical

Progress = Callable[[int, int], None]  # records checked, records in all

PROBLEMS_MAX: Final = 100
_PROGRESS_EVERY: Final = 10_000
_STATUSES: Final = frozenset(status.value for status in Status)
_MEASURES: Final = frozenset(measured.value for measured in Measured)


@dataclass(frozen=True, slots=True)
class Verification:
    """`problems` is in plain words, at most PROBLEMS_MAX of them; `ok` when there is none."""

    ok: bool
    records: int
    open: int  # opened and not settled: at work now, or cut off by a stop
    head_sha256: str
    problems: list[str]


@dataclass(slots=True)
class _Findings:
    problems: list[str] = field(default_factory=list)
    left_out: int = 0

    def add(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_MAX - 1:
            self.problems.append(problem)
        else:
            self.left_out += 1

    def all(self) -> list[str]:
        if self.left_out:
            return [*self.problems, f"… and {self.left_out} more"]
        return self.problems


@dataclass(slots=True)
class _End:
    """How far the records were read."""

    seq: int = 0
    sha256: bytes = chain.GENESIS
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


def no_progress(_checked: int, _total: int) -> None:
    """Nobody watches."""


def verify(connection: sqlite3.Connection, progress: Progress = no_progress) -> Verification:
    """Read the whole ledger once, inside the caller's read transaction, in constant memory.

    Checks the file itself, that numbers are contiguous from 1, that each hash follows from the one
    before and the record, that the head is the last record, that no id is there twice, and that
    the sums kept (head, slots) are the sums of the records.
    """
    findings = _Findings()
    end = _End()
    still_open = 0
    try:
        _check_file(connection, findings)
        _check_records(connection, findings, end, progress)
        _check_head(connection, findings, end)
        _check_ids(connection, findings)
        _check_slots(connection, findings)
        still_open = _count_open(connection, findings)
    except sqlite3.DatabaseError as error:
        findings.add(f"After record {end.seq} the file cannot be read any further: {error}.")
    problems = findings.all()
    return Verification(
        ok=not problems,
        records=end.seq,
        open=still_open,
        head_sha256=end.sha256.hex(),
        problems=problems,
    )


def _check_file(connection: sqlite3.Connection, findings: _Findings) -> None:
    for (line,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})"):
        if line != "ok":
            findings.add(f"SQLite finds the file damaged: {line}.")


def _check_records(
    connection: sqlite3.Connection, findings: _Findings, end: _End, progress: Progress
) -> None:
    """Follow the chain; `end` is the last record reached and the sums up to it."""
    (total,) = connection.execute("SELECT coalesce(max(seq), 0) FROM records").fetchone()
    count = 0
    for record, stored in _records(connection):
        if record.seq != end.seq + 1:
            findings.add(f"Record {record.seq} follows record {end.seq}.")
        if chain.link(end.sha256, canonical(record)) != stored:
            findings.add(f"Record {record.seq} ({record.record_id}) is not what was recorded.")
        if (
            record.v != VERSION
            or record.status not in _STATUSES
            or record.measured not in _MEASURES
            or not _possible(record)
        ):
            findings.add(f"Record {record.seq} ({record.record_id}) breaks a rule of the ledger.")
        # The chain goes on from the hash that is stored, so that one change is one finding.
        end.seq, end.sha256 = record.seq, stored
        if _integers(record):
            end.input_tokens += record.input_tokens
            end.output_tokens += record.output_tokens
            end.cached_tokens += record.cached_tokens
        count += 1
        if count % _PROGRESS_EVERY == 0:
            progress(count, total)
    progress(count, total)


def _integers(record: Record) -> bool:
    """Whether the tokens are numbers at all: SQLite stores anything in any column."""
    return (
        type(record.input_tokens) is int
        and type(record.output_tokens) is int
        and type(record.cached_tokens) is int
    )


def _possible(record: Record) -> bool:
    return (
        _integers(record)
        and 0 <= record.cached_tokens <= record.input_tokens
        and record.output_tokens >= 0
    )


def _check_head(connection: sqlite3.Connection, findings: _Findings, end: _End) -> None:
    heads = connection.execute(
        "SELECT seq, sha256, input_tokens, output_tokens, cached_tokens FROM head"
    ).fetchall()
    if len(heads) != 1:
        findings.add(f"The head is there {len(heads)} times.")
        return
    seq, stored, *sums = heads[0]
    sha256 = _hash(stored)
    found = [end.input_tokens, end.output_tokens, end.cached_tokens]
    if (seq, sha256, sums) != (end.seq, end.sha256, found):
        findings.add(
            f"The head says record {seq}, {sha256.hex()}, tokens {sums}; the records say"
            f" {end.seq}, {end.sha256.hex()}, {found}."
        )


def _check_ids(connection: sqlite3.Connection, findings: _Findings) -> None:
    for column in ("record_id", "request_id"):
        for value, times in connection.execute(
            f"SELECT {column}, count(*) FROM records GROUP BY {column} HAVING count(*) > 1"  # noqa: S608
        ):
            findings.add(f"{column} {value} is there {times} times.")


def _records(connection: sqlite3.Connection) -> Iterator[tuple[Record, bytes]]:
    for row in connection.execute(f"{RECORD_SELECT} ORDER BY r.seq"):
        yield Record(*row[:-1]), _hash(row[-1])


def _hash(stored: object) -> bytes:
    """A hash as it is stored; b"", which follows from nothing, when it is no bytes."""
    return stored if isinstance(stored, bytes) else b""


def _check_slots(connection: sqlite3.Connection, findings: _Findings) -> None:
    """The sums in `slots` against the records, both ways."""
    summed = f"""
        SELECT settled_at_ns / {SLOT_NS}, subject_no, count(*), sum(input_tokens),
          sum(output_tokens), sum(cached_tokens), min(seq), max(seq)
        FROM records GROUP BY 1, 2
    """  # noqa: S608 (a number of this package)
    for first, second in ((summed, "SELECT * FROM slots"), ("SELECT * FROM slots", summed)):
        for row in connection.execute(f"SELECT * FROM ({first}) EXCEPT SELECT * FROM ({second})"):  # noqa: S608
            findings.add(f"The sums of slot {row[0]}, subject {row[1]} are not its records' sums.")


def _count_open(connection: sqlite3.Connection, findings: _Findings) -> int:
    count = 0
    for group_no, body in connection.execute("SELECT group_no, body FROM openings"):
        try:
            lines = OPEN_LINES.decode(body)
        except (msgspec.DecodeError, TypeError):
            findings.add(f"The openings of group {group_no} cannot be read.")
            continue
        for line in lines:
            row = connection.execute(
                "SELECT 1 FROM records WHERE record_id = ?", (line.record_id,)
            ).fetchone()
            count += row is None
    return count
