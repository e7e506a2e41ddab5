"""Many rows into a table at once, without what SQLAlchemy does for each of them.

SQLite takes them by the driver's `executemany`, in C. pg8000 would ask the server once for each
row; COPY takes them all in one request.
Source of the format: PostgreSQL's page on COPY, "Text Format".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pg8000
from sqlalchemy import Column, Connection, LargeBinary, Table, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from appliance.controlplane.database import POSTGRESQL

_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_ROWS_AT_ONCE: Final = 32
_FEW: Final = 4  # below this the simple way is as good

Values = tuple[object, ...]


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows that all have the same columns. Raises IntegrityError as an insert does."""
    if not rows:
        return
    if len(rows) < _FEW:
        connection.execute(insert(table), [dict(row) for row in rows])
        return
    given = list(rows[0])
    missing = {
        column.name: column.default.arg
        for column in table.c
        if column.name not in rows[0] and isinstance(column.default, ScalarElementColumnDefault)
    }
    columns = [table.c[name] for name in (*given, *missing)]
    constants = tuple(missing.values())
    values = [(*(row[name] for name in given), *constants) for row in rows]
    names = ", ".join(f'"{column.name}"' for column in columns)
    if connection.dialect.name == POSTGRESQL:
        _copy(connection, f'COPY "{table.name}" ({names}) FROM STDIN', columns, values)
        return
    marks = ", ".join("?" * len(columns))
    # Names of our own tables and columns; the values are bound.
    statement = f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})'  # noqa: S608
    connection.exec_driver_sql(statement, values)


def _copy(
    connection: Connection, statement: str, columns: Sequence[Column[Any]], values: list[Values]
) -> None:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, stream=_pieces(columns, values))  # type: ignore[call-arg]  # pg8000's
    except pg8000.Error as error:
        # As SQLAlchemy does with what it sends itself, so that a transaction is run again.
        raise DBAPIError.instance(statement, None, error, pg8000.Error) from error
    finally:
        cursor.close()


def _pieces(columns: Sequence[Column[Any]], values: list[Values]) -> Iterator[bytes]:
    binary = [isinstance(column.type, LargeBinary) for column in columns]
    for start in range(0, len(values), _ROWS_AT_ONCE):
        lines = (
            "\t".join(map(_text, row, binary)) for row in values[start : start + _ROWS_AT_ONCE]
        )
        yield ("\n".join(lines) + "\n").encode()


def _text(value: object, binary: bool) -> str:  # noqa: FBT001 (one of two iterables of a map)
    if value is None:
        return "\\N"
    if binary:
        assert isinstance(value, bytes)  # of a column of bytes
        return "\\\\x" + value.hex()
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value).translate(_ESCAPES)
