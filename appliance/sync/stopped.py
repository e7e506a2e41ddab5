"""Documents from the control plane, taken by a site that does not run: straight into ledger.db.

Only for who holds the site's lock: nobody else may write the ledger meanwhile.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from appliance.domain.clock import Clock
from appliance.metering.errors import LedgerUnavailable
from appliance.security.signing import PublicKey, load_signing_key
from appliance.settings import Sync as SyncSettings
from appliance.storage.database import connect
from appliance.storage.writer import of_the_disk
from appliance.sync.books import read_books
from appliance.sync.identity import KEY_FILE, NEXT_KEY_FILE
from appliance.sync.inbox import bring
from appliance.sync.states import report, status
from appliance.wire.sync import DocumentOutcome, SyncReport


def bring_stopped(
    ledger_file: Path,
    secrets: Path,
    settings: SyncSettings,
    clock: Clock,
    envelopes: Sequence[bytes],
    key: PublicKey | None,
) -> SyncReport:
    """As the running appliance's `bring`, in one transaction. Raises what that raises."""
    held = [
        load_signing_key(secrets / name).key_id
        for name in (KEY_FILE, NEXT_KEY_FILE)
        if (secrets / name).exists()
    ]
    with closing(connect(ledger_file)) as connection:
        connection.row_factory = None
        outcomes = _in_one_transaction(connection, envelopes, key, clock.wall_ns(), held)
        books = read_books(connection)
    after = status(
        books,
        mode=settings.mode,
        interval_s=settings.interval_s,
        url=settings.control_plane_url or books.state.control_plane_url,
        now_ns=clock.wall_ns(),
    )
    return report(0, outcomes, after)


def _in_one_transaction(
    connection: sqlite3.Connection,
    envelopes: Sequence[bytes],
    key: PublicKey | None,
    wall_ns: int,
    held: Sequence[str],
) -> list[DocumentOutcome]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = bring(connection, envelopes, key, wall_ns, held)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if not of_the_disk(error):
            raise
        raise LedgerUnavailable(
            f"The ledger cannot be written: {error}. Nothing was changed.",
            next_step="Free space on the disk that holds ledger.db, and import again.",
        ) from error
    return outcomes
