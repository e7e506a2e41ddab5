"""The tariffs that something in the outbox waits to be billed at."""

from typing import Final

from sqlalchemy import ColumnElement, Connection, RowMapping, select

from appliance.controlplane.billing.outbox_table import OUTBOX
from appliance.controlplane.payments.lanes import OPEN_STATES
from appliance.controlplane.payments.stripe_names import Tariff

# The columns a tariff is made of, but for the currency.
_TARIFF: Final = (
    OUTBOX.c.meter,
    OUTBOX.c.kind,
    OUTBOX.c.model,
    OUTBOX.c.region,
    OUTBOX.c.plan,
    OUTBOX.c.micros_per_million,
    OUTBOX.c.multiplier_bp,
)


def open_hours(
    connection: Connection, wanted: ColumnElement[bool], currency: str
) -> dict[Tariff, list[int]]:
    """The hours of the wanted rows, by tariff."""
    rows = connection.execute(
        select(*_TARIFF, OUTBOX.c.hour_s).where(wanted).distinct().order_by(OUTBOX.c.hour_s)
    )
    found: dict[Tariff, list[int]] = {}
    for row in rows.mappings():
        found.setdefault(_tariff(row, currency), []).append(row["hour_s"])
    return found


def open_tariffs(
    connection: Connection, currency: str, customer_id: str | None = None
) -> list[tuple[str, Tariff]]:
    """Every customer, or one, with each tariff that has something to deliver."""
    wanted: list[ColumnElement[bool]] = [OUTBOX.c.state.in_(OPEN_STATES)]
    if customer_id is not None:
        wanted.append(OUTBOX.c.customer_id == customer_id)
    rows = connection.execute(
        select(OUTBOX.c.customer_id, *_TARIFF)
        .where(*wanted)
        .distinct()
        .order_by(OUTBOX.c.customer_id, OUTBOX.c.meter, *_TARIFF[-2:])
    )
    return [(row["customer_id"], _tariff(row, currency)) for row in rows.mappings()]


def _tariff(row: RowMapping, currency: str) -> Tariff:
    return Tariff(**{column.name: row[column.name] for column in _TARIFF}, currency=currency)
