"""The reconciliation as JSON and as CSV. Pure."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, fields
from decimal import Decimal
from typing import Any, Final

from appliance.controlplane.billing.reconcile import Report
from appliance.controlplane.billing.reconciliation import ReportRow

COLUMNS: Final = tuple(field.name for field in fields(ReportRow))
# A spreadsheet takes a text that begins with one of these for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def explained(row: ReportRow) -> int:
    """Tokens that are signed and are not to be in the outbox."""
    return row.free + row.reserved + row.held + row.written_off


def as_object(report: Report) -> dict[str, Any]:
    return {
        "rows": [asdict(row) for row in report.rows],
        "total": asdict(report.total),
        "problems": report.problems,
        "currency": report.currency,
        "sound": report.sound,
    }


def csv_text(report: Report) -> str:
    """One line for each row and one for the total; RFC 4180."""
    return csv_lines(COLUMNS, (asdict(row) for row in (*report.rows, report.total)))


def csv_lines(columns: Iterable[str], rows: Iterable[dict[str, object]]) -> str:
    """A heading and the rows. Nothing is an empty field; texts cannot become formulas."""
    out = io.StringIO()
    names = list(columns)
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])
    return out.getvalue()


def money(micros: int) -> Decimal:
    """Micros as the currency's main unit, exactly."""
    return Decimal(micros).scaleb(-6)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return str(value)
