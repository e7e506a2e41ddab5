"""When the appliance was started, and after which record: rows of ledger.db.

A restored copy tells by them what stood in its ledger when it was put to work.
"""

import sqlite3


def record_start(connection: sqlite3.Connection, at_ns: int, boot_id: str, mono_ns: int) -> None:
    """Remember this start, after what the last stop cut off was settled."""
    connection.execute(
        "INSERT INTO starts (at_ns, boot_id, mono_ns, record_seq, record_sha256)"
        " SELECT ?, ?, ?, seq, sha256 FROM head",
        (at_ns, boot_id, mono_ns),
    )


def first_start_after(connection: sqlite3.Connection, at_ns: int) -> int | None:
    """The newest record when the appliance was started first after that moment; None: never."""
    row = connection.execute(
        "SELECT record_seq FROM starts WHERE at_ns > ? ORDER BY number LIMIT 1", (at_ns,)
    ).fetchone()
    return None if row is None else int(row[0])
