"""The table of limits that are set: one row for each scope that has any."""

import sqlite3
from dataclasses import astuple
from typing import Final

from appliance.domain.limits import Layer, Limits
from appliance.registry.names import check_count

# The only scope of the global layer.
GLOBAL_SCOPE: Final = "global"

# For a query that joins the limits of its own scope as `l`.
COLUMNS: Final = "l.requests_per_min, l.tokens_per_min, l.tokens_per_day, l.concurrency"


def limits_of(row: sqlite3.Row) -> Limits:
    """The limits in a row that has COLUMNS."""
    return Limits(
        row["requests_per_min"], row["tokens_per_min"], row["tokens_per_day"], row["concurrency"]
    )


def read_limits(connection: sqlite3.Connection, layer: Layer, scope_id: str) -> Limits:
    row = connection.execute(
        "SELECT * FROM limits WHERE layer = ? AND scope_id = ?", [layer, scope_id]
    ).fetchone()
    return Limits() if row is None else limits_of(row)


def write_limits(
    connection: sqlite3.Connection, layer: Layer, scope_id: str, limits: Limits
) -> None:
    """Replace what is set for a scope. Raises InvalidValue for a limit below one."""
    for value in astuple(limits):
        if value is not None:
            check_count("A limit", value)
    connection.execute("DELETE FROM limits WHERE layer = ? AND scope_id = ?", [layer, scope_id])
    if not limits.unlimited:
        connection.execute(
            "INSERT INTO limits VALUES (?, ?, ?, ?, ?, ?)", [layer, scope_id, *astuple(limits)]
        )
