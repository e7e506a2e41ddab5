"""Many rows into a table at once.

SQLite takes them by the driver's `executemany`, in C. pg8000 would ask the server once for each
row; COPY takes them all in one request.
Source of the format: PostgreSQL's page on COPY, "Text Format".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pg8000
from sqlalchemy import Column, Connection, LargeBinary, Table, insert
from sqlalchemy.exc import DBAPIError

from appliance.controlplane.database import POSTGRESQL

_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_ROWS_AT_ONCE: Final = 32
_FEW: Final = 4  # below this the simple way is as good


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows that all have the same columns. Raises IntegrityError as an insert does."""
    if not rows:
        return
    if connection.dialect.name != POSTGRESQL or len(rows) < _FEW:
        connection.execute(insert(table), [dict(row) for row in rows])
        return
    columns = [table.c[name] for name in rows[0]]
    names = ", ".join(f'"{column.name}"' for column in columns)
    statement = f'COPY "{table.name}" ({names}) FROM STDIN'
    statement = f'COPY "{table.name}" ({names}) FROM STDIN'
    statement = f'COPY "{table.name}" ({names}) FROM STDIN'
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, stream=_pieces(columns, rows))  # type: ignore[call-arg]  # pg8000's
    except pg8000.Error as error:
        # As SQLAlchemy does with what it sends itself, so that a transaction is run again.
        raise DBAPIError.instance(statement, None, error, pg8000.Error) from error
    finally:
        cursor.close()


def _pieces(
    columns: Sequence[Column[Any]], rows: Sequence[Mapping[str, object]]
) -> Iterator[bytes]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield "".join(_line(columns, row) for row in rows[start : start + _ROWS_AT_ONCE]).encode()


def _line(columns: Sequence[Column[Any]], row: Mapping[str, object]) -> str:
    return "\t".join(_text(column, row[column.name]) for column in columns) + "\n"


def _text(column: Column[Any], value: object) -> str:
    if value is None:
        return "\\N"
    if isinstance(column.type, LargeBinary):
        assert isinstance(value, bytes)
        return "\\\\x" + value.hex()
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value).translate(_ESCAPES)
