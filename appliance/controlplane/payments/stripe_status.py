"""How far billing through Stripe is: rows by state, lanes that wait and why, items, events."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select

from appliance.controlplane.billing.outbox_table import OUTBOX
from appliance.controlplane.payments.lanes import OPEN_STATES
from appliance.controlplane.payments.stripe_tables import (
    LATE_ITEMS,
    STRIPE_EVENTS,
    STRIPE_LANES,
    STRIPE_OBJECTS,
)


@dataclass(frozen=True, slots=True)
class StateCount:
    state: str
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class WaitingLane:
    """`next_try_ns` and why it waits; `failures` in a row."""

    customer_id: str
    meter: str
    failures: int
    next_try_ns: int
    note: str


@dataclass(frozen=True, slots=True)
class StripeStatus:
    configured: bool
    states: Sequence[StateCount]
    oldest_waiting_ns: int | None  # when the oldest row that is still open was made
    lanes: Sequence[WaitingLane]
    objects: dict[str, int]
    late_items_open: int
    late_items_refused: int
    events_open: int


def stripe_status(connection: Connection, *, configured: bool) -> StripeStatus:
    states = connection.execute(
        select(OUTBOX.c.state, func.count(), func.sum(OUTBOX.c.quantity))
        .group_by(OUTBOX.c.state)
        .order_by(OUTBOX.c.state)
    ).all()
    oldest = connection.execute(
        select(func.min(OUTBOX.c.created_at_ns)).where(OUTBOX.c.state.in_(OPEN_STATES))
    ).scalar()
    lanes = connection.execute(
        select(
            STRIPE_LANES.c.customer_id,
            STRIPE_LANES.c.meter,
            STRIPE_LANES.c.failures,
            STRIPE_LANES.c.next_try_ns,
            STRIPE_LANES.c.note,
        )
        .where(STRIPE_LANES.c.note != "")
        .order_by(STRIPE_LANES.c.customer_id, STRIPE_LANES.c.meter)
    ).all()
    objects = connection.execute(
        select(STRIPE_OBJECTS.c.kind, func.count())
        .where(STRIPE_OBJECTS.c.stripe_id.is_not(None))
        .group_by(STRIPE_OBJECTS.c.kind)
        .order_by(STRIPE_OBJECTS.c.kind)
    ).all()
    open_items = LATE_ITEMS.c.stripe_id.is_(None)
    return StripeStatus(
        configured=configured,
        states=[StateCount(state, rows, int(tokens)) for state, rows, tokens in states],
        oldest_waiting_ns=oldest,
        lanes=[WaitingLane(*lane) for lane in lanes],
        objects={row.kind: row[1] for row in objects},
        late_items_open=_count(connection, open_items & (LATE_ITEMS.c.refused == "")),
        late_items_refused=_count(connection, open_items & (LATE_ITEMS.c.refused != "")),
        events_open=_count(connection, STRIPE_EVENTS.c.handled_at_ns.is_(None)),
    )


def _count(connection: Connection, wanted: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).where(wanted)).scalar_one()
