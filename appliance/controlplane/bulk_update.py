"""Many rows of a table changed at once, each found by its key.

SQLite takes them by the driver's `executemany`. pg8000 would ask the server for each row: there
they go into a temporary table by COPY, and one statement joins it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Column, Connection, MetaData, Table, bindparam, update

from appliance.controlplane.bulk import insert_rows
from appliance.controlplane.database import POSTGRESQL

_FEW: Final = 20  # below this the simple way is as good


def update_rows(
    connection: Connection,
    table: Table,
    key: Sequence[str],
    rows: Sequence[Mapping[str, object]],
) -> None:
    """Set all columns of `rows` that are not of the key. All rows have the same columns."""
    if not rows:
        return
    changed = [name for name in rows[0] if name not in key]
    if connection.dialect.name == POSTGRESQL and len(rows) >= _FEW:
        _joined(connection, table, key, changed, rows)
        return
    statement = (
        update(table)
        .where(*(table.c[name] == bindparam(f"k_{name}") for name in key))
        .values({name: bindparam(f"v_{name}") for name in changed})
    )
    values = [
        {f"{'k' if name in key else 'v'}_{name}": value for name, value in row.items()}
        for row in rows
    ]
    connection.execute(statement, values)


def _joined(
    connection: Connection,
    table: Table,
    key: Sequence[str],
    changed: Sequence[str],
    rows: Sequence[Mapping[str, object]],
) -> None:
    staged = Table(
        f"staged_{table.name}",
        MetaData(),
        *(Column(name, table.c[name].type) for name in rows[0]),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    staged.create(connection, checkfirst=False)
    insert_rows(connection, staged, rows)
    connection.execute(
        update(table)
        .where(*(table.c[name] == staged.c[name] for name in key))
        .values({name: staged.c[name] for name in changed})
    )
    staged.drop(connection, checkfirst=False)
