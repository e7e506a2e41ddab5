"""The tables are made, and brought to this version, when a control plane starts.

Several that start at once do it one after the other: the first does it, the rest find it done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Integer, Table, insert, inspect, select, text

from appliance.controlplane import tables
from appliance.controlplane.database import Database
from appliance.controlplane.errors import SchemaTooNew

_LOCK: Final = 0x636C_6370  # of PostgreSQL's advisory locks: ours alone

VERSIONS: Final = Table(
    "schema_versions",
    tables.METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
)

# What turns version N into N + 1, from 1 on. A new database is made by the tables themselves.
_STEPS: Final[tuple[Callable[[Connection], None], ...]] = ()
VERSION: Final = 1 + len(_STEPS)


def migrate(database: Database, now_ns: int) -> None:
    """Make or bring up every table. Raises SchemaTooNew, DatabaseUnavailable."""
    with _alone(database):
        database.transact(lambda connection: _migrate(connection, now_ns))


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Keep others out from before the transaction begins: its view is as old as its beginning."""
    if not database.shared:
        yield
        return
    with database.engine.connect() as holder:
        holder.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        holder.rollback()  # the lock is the connection's and stays
        try:
            yield
        finally:
            holder.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            holder.rollback()


def _migrate(connection: Connection, now_ns: int) -> None:
    if not inspect(connection).has_table(VERSIONS.name):
        tables.METADATA.create_all(connection)
        connection.execute(insert(VERSIONS).values(version=VERSION, at_ns=now_ns))
        return
    found = max(connection.execute(select(VERSIONS.c.version)).scalars())
    if found > VERSION:
        raise SchemaTooNew(
            f"The database is of version {found}; this program knows version {VERSION}.",
            next_step="Install the version of the product that wrote it, or a newer one.",
        )
    for step, version in zip(_STEPS[found - 1 :], range(found + 1, VERSION + 1), strict=True):
        step(connection)
        connection.execute(insert(VERSIONS).values(version=version, at_ns=now_ns))
