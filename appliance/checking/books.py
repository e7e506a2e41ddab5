"""The ledger and the registry: the end of the chain, the writer, the file's own structure."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from appliance.checking.findings import Check, Finding, aside, good, size, span
from appliance.metering import chain
from appliance.metering.ledger import Ledger
from appliance.metering.schema import RECORD_SELECT
from appliance.storage.database import connect
from appliance.wire.home import Home
from appliance.wire.records import Record, canonical

_TAIL: Final = 500
_INTEGRITY_S: Final = 60.0
_STEPS: Final = 10_000  # of SQLite between two looks at the clock
_SLOW_COMMIT_S: Final = 0.1
_SLOW_TURN_S: Final = 0.5
_DAMAGED: Final = "Keep the file as it is, and run `cic ledger verify`; restore it from a backup."


def book_checks(home: Home) -> list[Check]:
    """What can be read of a site that runs, and of one that is stopped."""

    async def tip() -> Sequence[Finding]:
        return await aside(lambda: [tip_found(home.ledger_file)])

    async def registry() -> Sequence[Finding]:
        return await aside(lambda: [integrity_found(home.registry_file, _INTEGRITY_S)])

    return [
        Check(
            "ledger.tip",
            "Each record is chained to the one before; what was changed shows at once.",
            tip,
            deadline_s=30.0,
        ),
        Check(
            "registry.integrity",
            "Tenants, keys, limits and the audit are in this file.",
            registry,
            deadline_s=_INTEGRITY_S + 10.0,
        ),
    ]


def commit_check(ledger: Ledger) -> Check:
    async def look() -> Sequence[Finding]:
        began_s = time.monotonic()
        await asyncio.wrap_future(ledger.transact(lambda c: c.execute("SELECT 1").fetchone()))
        return [commit_found(ledger, time.monotonic() - began_s)]

    return Check(
        "ledger.commit", "A request is answered when its record is on the disk, not before.", look
    )


def commit_found(ledger: Ledger, turn_s: float) -> Finding:
    counters = ledger.counters
    mean_s = counters.commit_s / counters.commits if counters.commits else 0.0
    seen = (
        f"The writer took its turn within {span(turn_s)}; {counters.commits:,} commits of"
        f" {span(mean_s)} each; {counters.failures:,} were refused."
    )
    if not ledger.healthy:
        return Finding(
            "failed",
            f"The last write was refused. {seen}",
            "Free space on the disk that holds ledger.db, or replace the disk.",
        )
    if counters.failures:
        return Finding("warning", seen, "See the log for the moment and the reason.")
    if mean_s > _SLOW_COMMIT_S or turn_s > _SLOW_TURN_S:
        return Finding("warning", seen, "See the check disk.latency.")
    return good(seen)


def tip_found(ledger_file: Path) -> Finding:
    """The end of the chain, recomputed, and compared with the head that is kept beside it."""
    if not ledger_file.exists():
        return Finding("skipped", "This site has no ledger yet.")
    with closing(connect(ledger_file, read_only=True)) as connection:
        connection.execute("BEGIN")
        return _tip(connection)


def _tip(connection: sqlite3.Connection) -> Finding:
    seq, head = connection.execute("SELECT seq, sha256 FROM head").fetchone()
    rows = connection.execute(
        f"{RECORD_SELECT} WHERE r.seq > ? ORDER BY r.seq", [seq - _TAIL - 1]
    ).fetchall()
    before = chain.GENESIS
    for number, row in enumerate(rows):
        record, stored = Record(*tuple(row)[:-1]), row[-1]
        # Of the first one the hash before it is not at hand, unless it is the very first.
        if (number or record.seq == 1) and chain.link(before, canonical(record)) != stored:
            return Finding("failed", f"Record {record.seq} is not what was recorded.", _DAMAGED)
        before = stored
    if (rows[-1]["seq"] if rows else 0) != seq or before != head:
        return Finding("failed", f"The newest record is not the head, {seq:,}.", _DAMAGED)
    return good(f"{seq:,} records; the last {len(rows):,} follow from each other.")


def integrity_found(path: Path, deadline_s: float) -> Finding:
    """SQLite's own quick look. Cut short when it takes too long for a site at work."""
    if not path.exists():
        return Finding(
            "failed", f"{path} is not there.", "Restore it from a backup, or `cic init`."
        )
    until_s = time.monotonic() + deadline_s
    with closing(connect(path, read_only=True)) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > until_s, _STEPS)
        try:
            lines = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                return Finding("skipped", f"It takes longer than {span(deadline_s)}.")
            raise
        except sqlite3.DatabaseError as error:
            lines = [str(error)]
    if lines != ["ok"]:
        return Finding(
            "failed",
            f"SQLite finds the file damaged: {lines[0]}.",
            "Stop the appliance, keep the file, and restore it from a backup.",
        )
    return good(f"Sound, {size(path.stat().st_size)}.")
