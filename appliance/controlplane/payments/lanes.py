"""Who may speak to Stripe about one customer and meter: a lease in the database, one at a time.

Stripe takes one call at a time per customer and meter ("Record usage for billing with the API",
rate limits). A lease outlives the calls made under it; who holds it no longer makes none.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.payments.stripe_tables import STRIPE_LANES

OPEN_STATES: Final = (OutboxState.PENDING, OutboxState.SENDING)


@dataclass(frozen=True, slots=True)
class Lane:
    customer_id: str
    meter: str
    failures: int


def open_lanes(connection: Connection) -> None:
    """A lane for every customer and meter that has something to deliver."""
    waiting = (
        select(OUTBOX.c.customer_id, OUTBOX.c.meter)
        .where(
            OUTBOX.c.state.in_(OPEN_STATES),
            OUTBOX.c.late_key.is_(None),
            ~exists().where(
                STRIPE_LANES.c.customer_id == OUTBOX.c.customer_id,
                STRIPE_LANES.c.meter == OUTBOX.c.meter,
            ),
        )
        .distinct()
    )
    into = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(
        into(STRIPE_LANES)
        .from_select(["customer_id", "meter"], waiting, include_defaults=True)
        .on_conflict_do_nothing()
    )


def lease(
    connection: Connection, holder: str, now_ns: int, until_ns: int, limit: int
) -> list[Lane]:
    """Take up to `limit` lanes that have something to deliver now and that nobody holds.

    PostgreSQL passes over rows that another control plane is just taking; SQLite has one writer.
    """
    open_lanes(connection)
    lanes = STRIPE_LANES
    work = exists().where(
        OUTBOX.c.customer_id == lanes.c.customer_id,
        OUTBOX.c.meter == lanes.c.meter,
        OUTBOX.c.state.in_(OPEN_STATES),
        OUTBOX.c.late_key.is_(None),
    )
    due = connection.execute(
        select(lanes.c.customer_id, lanes.c.meter, lanes.c.failures)
        .where(lanes.c.next_try_ns <= now_ns, lanes.c.leased_until_ns <= now_ns, work)
        .order_by(lanes.c.next_try_ns)
        .limit(limit)
        .with_for_update(skip_locked=True, of=lanes)
    ).all()
    for customer_id, meter, _ in due:
        connection.execute(
            update(lanes)
            .where(lanes.c.customer_id == customer_id, lanes.c.meter == meter)
            .values(holder=holder, leased_until_ns=until_ns)
        )
    return [Lane(customer_id, meter, failures) for customer_id, meter, failures in due]


def release(
    connection: Connection, lane: Lane, holder: str, *, next_try_ns: int, failures: int, note: str
) -> None:
    lanes = STRIPE_LANES
    connection.execute(
        update(lanes)
        .where(
            lanes.c.customer_id == lane.customer_id,
            lanes.c.meter == lane.meter,
            lanes.c.holder == holder,
        )
        .values(holder="", leased_until_ns=0, next_try_ns=next_try_ns, failures=failures, note=note)
    )


def wake(connection: Connection, customer_id: str | None = None) -> None:
    """Something changed: lanes need not wait for their time."""
    of_customer = [] if customer_id is None else [STRIPE_LANES.c.customer_id == customer_id]
    connection.execute(update(STRIPE_LANES).where(*of_customer).values(next_try_ns=0))
