"""Rows whose meter events Stripe took and then dropped, as its error reports tell.

A report names samples by the idempotency key of the request ("Meter error reports"; the event's
own class in the SDK says so of `request.identifier`). Where it counts more errors than it names,
every row sent for that meter in its window is under suspicion. A suspect goes back to `sending`
and is decided by Stripe's sum of its hour; if it is absent there, a person decides.
"""

from typing import Final

from sqlalchemy import Connection, and_, select, update

from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.payments.lanes import wake
from appliance.controlplane.payments.stripe_objects import ErrorReport
from appliance.controlplane.payments.stripe_tables import (
    STRIPE_ATTEMPTS,
    STRIPE_DELIVERIES,
    STRIPE_OBJECTS,
)

SECOND_NS: Final = 1_000_000_000
WINDOW_SLACK_S: Final = 300  # between our clock and Stripe's, and of a call's own time
NOTE_MAX: Final = 300
BELIEVED: Final = (OutboxState.ACCEPTED, OutboxState.RECONCILED, OutboxState.SENDING)


def suspect(connection: Connection, report: ErrorReport) -> tuple[int, int]:
    """Put the report's rows under suspicion: how many it names, and how many more."""
    named = {
        row_id: reason
        for reason, key, message in report.samples
        if (row_id := _row_of(connection, key)) is not None
        for reason in [f"{report.event_id}: {reason}: {message}"[:NOTE_MAX]]
    }
    for row_id, reason in named.items():
        _mark(connection, row_id, reason)
    others: set[str] = set()
    if report.error_count > len(report.samples):
        others = _in_window(connection, report) - set(named)
        for row_id in others:
            _mark(connection, row_id, f"{report.event_id}: in the window of an error report")
    if named or others:
        wake(connection)
    return len(named), len(others)


def _row_of(connection: Connection, idempotency_key: str) -> str | None:
    found: str | None = connection.execute(
        select(STRIPE_ATTEMPTS.c.row_id).where(STRIPE_ATTEMPTS.c.idempotency_key == idempotency_key)
    ).scalar()
    return found


def _in_window(connection: Connection, report: ErrorReport) -> set[str]:
    """Rows sent in the report's window, for its meter if it names one."""
    sent = select(STRIPE_ATTEMPTS.c.row_id).where(
        STRIPE_ATTEMPTS.c.sent_at_ns >= (report.window_start_s - WINDOW_SLACK_S) * SECOND_NS,
        STRIPE_ATTEMPTS.c.sent_at_ns <= (report.window_end_s + WINDOW_SLACK_S) * SECOND_NS,
    )
    if report.meter_id:
        names = select(STRIPE_OBJECTS.c.key).where(
            STRIPE_OBJECTS.c.kind == "meter", STRIPE_OBJECTS.c.stripe_id == report.meter_id
        )
        sent = sent.join(
            STRIPE_DELIVERIES,
            and_(
                STRIPE_DELIVERIES.c.row_id == STRIPE_ATTEMPTS.c.row_id,
                STRIPE_DELIVERIES.c.event_name.in_(names),
            ),
        )
    return set(connection.execute(sent.distinct()).scalars())


def _mark(connection: Connection, row_id: str, reason: str) -> None:
    """A row that a person has already dealt with, or that is billed late, stays as it is."""
    back = connection.execute(
        update(OUTBOX)
        .where(
            OUTBOX.c.row_id == row_id,
            OUTBOX.c.state.in_(BELIEVED),
            OUTBOX.c.late_key.is_(None),
        )
        .values(state=OutboxState.SENDING, settled_at_ns=None, note=reason)
    ).rowcount
    if back:
        connection.execute(
            update(STRIPE_DELIVERIES)
            .where(STRIPE_DELIVERIES.c.row_id == row_id)
            .values(suspect=reason)
        )
