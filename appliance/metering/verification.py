"""Whether a ledger is what it claims: nothing missing, nothing twice, nothing changed."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from appliance.domain.usage import Measured, Status
from appliance.metering import chain
from appliance.metering.book import OPEN_LINES
from appliance.metering.records import Record
from appliance.metering.schema import RECORD_SELECT, SLOT_NS

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


def no_progress(_checked: int, _total: int) -> None:
    """Nobody watches."""


def verify(connection: sqlite3.Connection, progress: Progress = no_progress) -> Verification:
    """Read the whole ledger once, inside the caller's read transaction, in constant memory.

    Checks the file itself, that numbers are contiguous from 1, that each hash follows from the one
    before and the record, that the head is the last record, that no id is there twice, and that
    the sums kept (head, slots) are the sums of the records.
    """
    findings = _Findings()
    _check_file(connection, findings)
    head = connection.execute(
        "SELECT seq, sha256, input_tokens, output_tokens, cached_tokens FROM head"
    ).fetchall()
    if len(head) != 1:
        findings.add(f"The head is there {len(head)} times.")
        head = [(0, chain.GENESIS, 0, 0, 0)]
    found = _check_records(connection, findings, int(head[0][0]), progress)
    if found != tuple(head[0]):
        findings.add(
            f"The head says record {head[0][0]}, {bytes(head[0][1]).hex()}, tokens"
            f" {list(head[0][2:])}; the records say {found[0]}, {found[1].hex()},"
            f" {list(found[2:])}."
        )
    for column in ("record_id", "request_id"):
        for value, times in connection.execute(
            f"SELECT {column}, count(*) FROM records GROUP BY {column} HAVING count(*) > 1"  # noqa: S608
        ):
            findings.add(f"{column} {value} is there {times} times.")
    _check_slots(connection, findings)
    still_open = _count_open(connection, findings)
    problems = findings.all()
    return Verification(
        ok=not problems,
        records=found[0],
        open=still_open,
        head_sha256=found[1].hex(),
        problems=problems,
    )


def _check_file(connection: sqlite3.Connection, findings: _Findings) -> None:
    for (line,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})"):
        if line != "ok":
            findings.add(f"SQLite finds the file damaged: {line}.")


def _check_records(
    connection: sqlite3.Connection, findings: _Findings, total: int, progress: Progress
) -> tuple[int, bytes, int, int, int]:
    """Follow the chain; returns the number, hash and sums of the last record."""
    count, before = 0, chain.GENESIS
    sums = [0, 0, 0]
    seq = 0
    for record, stored in _records(connection):
        if record.seq != seq + 1:
            findings.add(f"Record {record.seq} follows record {seq}.")
        seq = record.seq
        if chain.link(before, chain.canonical(record)) != stored:
            findings.add(f"Record {seq} ({record.record_id}) is not what was recorded.")
        # Go on from the hash that is stored, so that one change is one finding.
        before = stored
        if (
            record.v != chain.VERSION
            or record.status not in _STATUSES
            or record.measured not in _MEASURES
            or not 0 <= record.cached_tokens <= record.input_tokens
            or record.output_tokens < 0
        ):
            findings.add(f"Record {seq} ({record.record_id}) breaks a rule of the ledger.")
        sums[0] += record.input_tokens
        sums[1] += record.output_tokens
        sums[2] += record.cached_tokens
        count += 1
        if count % _PROGRESS_EVERY == 0:
            progress(count, total)
    progress(count, total)
    return seq, before, sums[0], sums[1], sums[2]


def _records(connection: sqlite3.Connection) -> Iterator[tuple[Record, bytes]]:
    for row in connection.execute(f"{RECORD_SELECT} ORDER BY r.seq"):
        yield Record(*row[:-1]), bytes(row[-1])


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
        except msgspec.DecodeError:
            findings.add(f"The openings of group {group_no} cannot be read.")
            continue
        for line in lines:
            row = connection.execute(
                "SELECT 1 FROM records WHERE record_id = ?", (line.record_id,)
            ).fetchone()
            count += row is None
    return count
