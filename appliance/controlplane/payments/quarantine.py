"""Rows of the outbox that a person has to decide, and the three ways of deciding.

- `send`: Stripe does not have it. A row that Stripe took and dropped, or may have taken, gets
  another identifier: the old one is spent.
- `accept`: Stripe has it.
- `cancel`: it is not to be billed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, RowMapping, select, update

from appliance.controlplane.billing import journal
from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.errors import NotPossible
from appliance.controlplane.payments.lanes import wake
from appliance.controlplane.payments.stripe_names import another_identifier
from appliance.controlplane.payments.stripe_tables import (
    LATE_ITEMS,
    STRIPE_ATTEMPTS,
    STRIPE_DELIVERIES,
)

TO_DECIDE: Final = (OutboxState.QUARANTINED, OutboxState.AMBIGUOUS)


@dataclass(frozen=True, slots=True)
class Held:
    """One row, and the idempotency keys it was sent with, which Stripe's own log shows."""

    row_id: str
    customer_id: str
    meter: str
    hour_s: int
    quantity: int
    amount_micros: int
    state: str
    identifier: str
    late_key: str | None
    note: str
    keys: tuple[str, ...]


def held(connection: Connection, limit: int = 1_000) -> list[Held]:
    """What waits for a person, the oldest hour first."""
    rows = connection.execute(
        select(OUTBOX)
        .where(OUTBOX.c.state.in_(TO_DECIDE))
        .order_by(OUTBOX.c.hour_s, OUTBOX.c.row_id)
        .limit(limit)
    ).mappings()
    return [_held(connection, row) for row in rows.all()]


def send(connection: Connection, row_ids: Sequence[str], by: str) -> int:
    """Deliver them again. Raises NotPossible, and then changes nothing."""
    for row in _to_decide(connection, row_ids):
        if row["late_key"] is not None:
            _retry_item(connection, row["late_key"], by)
            continue
        trail = _trail(connection, row["row_id"])
        identifier = row["identifier"]
        if trail is not None and (row["state"] == OutboxState.AMBIGUOUS or trail["suspect"]):
            identifier = another_identifier(identifier, trail["attempts"])
        connection.execute(
            update(OUTBOX)
            .where(OUTBOX.c.row_id == row["row_id"])
            .values(
                state=OutboxState.PENDING,
                identifier=identifier,
                settled_at_ns=None,
                note=f"sent again by {by}",
            )
        )
        connection.execute(
            update(STRIPE_DELIVERIES)
            .where(STRIPE_DELIVERIES.c.row_id == row["row_id"])
            .values(doubt_since_ns=None, suspect="")
        )
        wake(connection, row["customer_id"])
    return len(row_ids)


def accept(connection: Connection, row_ids: Sequence[str], by: str, now_ns: int) -> int:
    """Stripe has them. Raises NotPossible, and then changes nothing."""
    for row in _to_decide(connection, row_ids):
        if row["late_key"] is not None:
            raise NotPossible(
                f"Row {row['row_id']} is part of the invoice item {row['late_key']}.",
                next_step="Send it again, or cancel it.",
            )
        _settle(connection, row["row_id"], OutboxState.ACCEPTED, f"accepted by {by}", now_ns)
    return len(row_ids)


def cancel(connection: Connection, row_ids: Sequence[str], by: str, now_ns: int) -> int:
    """They are not billed. Raises NotPossible, and then changes nothing."""
    for row in _to_decide(connection, row_ids):
        _settle(connection, row["row_id"], OutboxState.CANCELLED, f"cancelled by {by}", now_ns)
        journal.cancel(
            connection,
            row["row_id"],
            row["customer_id"],
            row["hour_s"],
            row["amount_micros"],
            now_ns,
        )
    return len(row_ids)


def _to_decide(connection: Connection, row_ids: Sequence[str]) -> list[RowMapping]:
    rows = (
        connection.execute(select(OUTBOX).where(OUTBOX.c.row_id.in_(row_ids)).with_for_update())
        .mappings()
        .all()
    )
    known = {row["row_id"]: row for row in rows}
    for row_id in row_ids:
        if row_id not in known:
            raise NotPossible(
                f"There is no row {row_id} in the outbox.",
                next_step="`cic control-plane stripe quarantine list` shows those to decide.",
            )
        if known[row_id]["state"] not in TO_DECIDE:
            raise NotPossible(
                f"Row {row_id} is {known[row_id]['state']}: there is nothing to decide.",
                next_step="`cic control-plane stripe quarantine list` shows those to decide.",
            )
    return [known[row_id] for row_id in dict.fromkeys(row_ids)]


def _retry_item(connection: Connection, late_key: str, by: str) -> None:
    """An invoice item that was refused is made again, with all of its rows that still wait."""
    connection.execute(
        update(LATE_ITEMS)
        .where(LATE_ITEMS.c.late_key == late_key)
        .values(refused="", next_try_ns=0, stored_failures=LATE_ITEMS.c.stored_failures + 1)
    )
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.late_key == late_key, OUTBOX.c.state.in_(TO_DECIDE))
        .values(state=OutboxState.PENDING, settled_at_ns=None, note=f"sent again by {by}")
    )


def _settle(
    connection: Connection, row_id: str, state: OutboxState, note: str, now_ns: int
) -> None:
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.row_id == row_id)
        .values(state=state, settled_at_ns=now_ns, note=note)
    )


def _trail(connection: Connection, row_id: str) -> RowMapping | None:
    return (
        connection.execute(select(STRIPE_DELIVERIES).where(STRIPE_DELIVERIES.c.row_id == row_id))
        .mappings()
        .first()
    )


def _held(connection: Connection, row: RowMapping) -> Held:
    keys = connection.execute(
        select(STRIPE_ATTEMPTS.c.idempotency_key)
        .where(STRIPE_ATTEMPTS.c.row_id == row["row_id"])
        .order_by(STRIPE_ATTEMPTS.c.sent_at_ns)
    ).scalars()
    names = [name for name in Held.__dataclass_fields__ if name != "keys"]
    return Held(**{name: row[name] for name in names}, keys=tuple(keys))
