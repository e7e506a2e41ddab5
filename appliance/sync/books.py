"""What ledger.db says of synchronisation, read at one moment for the status."""

import sqlite3

from appliance.manifests import archive
from appliance.manifests.archive import Kind
from appliance.sync.states import Books


def read_books(connection: sqlite3.Connection) -> Books:
    state, chain = archive.sync_state(connection), archive.chain_state(connection)
    oldest = archive.manifest_rows(connection, state.epoch, state.accepted_through, 1)
    return Books(
        state=state,
        epoch=chain.epoch,
        sealed_through=chain.seq,
        unreceipted=archive.unreceipted_count(connection),
        oldest_unreceipted_ns=oldest[0].sealed_at_ns if oldest else None,
        price_book_version=_version(connection, Kind.PRICE_BOOK),
        plans_version=_version(connection, Kind.PLANS),
    )


def _version(connection: sqlite3.Connection, kind: Kind) -> int:
    """Of these documents the version stands where others have their moment (`inbox.py`)."""
    kept = archive.newest(connection, kind)
    return 0 if kept is None else kept.at_ns
