"""The site's own books, read from ledger.db beside the appliance, whether it runs or not."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from appliance.commands.context import Refused, cic_line
from appliance.storage.database import connect
from appliance.wire.command import ExitCode
from appliance.wire.home import Home


@contextmanager
def reading(home: Home) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. Raises Refused where manifests were never kept."""
    if home.ledger_file.exists():
        with closing(connect(home.ledger_file, read_only=True)) as connection:
            connection.row_factory = None
            if _keeps_manifests(connection):
                yield connection
                return
    raise Refused(
        "no_manifests",
        f"The site in {home.state} is of before manifests.",
        next_step=f"Complete it with `{cic_line(home, 'init')}`.",
        exit_code=ExitCode.CONFIGURATION,
    )


def _keeps_manifests(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sync_state'")
    return found.fetchone() is not None
