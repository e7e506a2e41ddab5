"""Rows whose delivery is in doubt, decided by what Stripe has counted for their hour."""

import logging
from typing import Final

from sqlalchemy import Connection, RowMapping, select

from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.database import Database
from appliance.controlplane.payments import sending
from appliance.controlplane.payments.delivery import (
    HOUR_S,
    Doubtful,
    Presence,
    Verdict,
    verdict,
)
from appliance.controlplane.payments.lanes import Lane
from appliance.controlplane.payments.provisioning import Route
from appliance.controlplane.payments.stripe_facts import TAKEN, keep_reading
from appliance.controlplane.payments.stripe_objects import StripeApi
from appliance.controlplane.payments.stripe_tables import STRIPE_DELIVERIES
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000


class Lookup:
    """Reads Stripe's sums; each reading is kept, for a decision wants the same one twice."""

    def __init__(self, database: Database, api: StripeApi, clock: Clock) -> None:
        self._database = database
        self._api = api
        self._clock = clock

    async def decide(self, lane: Lane, route: Route, hour_s: int) -> Verdict:
        """Bring the doubtful rows of that hour as far as Stripe's sum allows."""
        sums = await self._api.summaries(
            route.meter_id, route.stripe_customer, hour_s, hour_s + HOUR_S
        )
        now_ns = self._clock.wall_ns()
        found = await self._database.arun(
            lambda connection: _decide(
                connection, lane, route.event_name, hour_s, sums.get(hour_s, 0), now_ns
            )
        )
        _log.info(
            "rows in doubt were looked up",
            extra={
                "customer_id": lane.customer_id,
                "event_name": route.event_name,
                "hour_s": hour_s,
                "presence": found.presence,
                "reason": found.reason,
            },
        )
        return found


def _decide(
    connection: Connection,
    lane: Lane,
    event_name: str,
    hour_s: int,
    quantity: int,
    now_ns: int,
) -> Verdict:
    sum_ = keep_reading(
        connection, lane.customer_id, lane.meter, event_name, hour_s, quantity, now_ns
    )
    rows = _rows(connection, lane, event_name, hour_s)
    accepted = sum(row["quantity"] for row in rows if row["state"] in TAKEN)
    doubtful = [
        row
        for row in rows
        if row["state"] == OutboxState.SENDING
        and (row["doubt_since_ns"] is not None or row["suspect"])
    ]
    last_ns = max((row["last_attempt_ns"] or 0 for row in rows), default=0)
    found = verdict(
        sum_,
        accepted,
        [Doubtful(row["row_id"], row["quantity"]) for row in doubtful],
        last_ns // SECOND_NS,
        now_ns // SECOND_NS,
    )
    _apply(connection, doubtful, found, now_ns)
    return found


def _apply(connection: Connection, doubtful: list[RowMapping], found: Verdict, now_ns: int) -> None:
    if found.presence is Presence.NOT_YET:
        return
    ids = [row["row_id"] for row in doubtful]
    if found.presence is Presence.UNDECIDABLE:
        sending.settle(connection, ids, OutboxState.AMBIGUOUS, now_ns, found.reason)
        return
    sending.settle(connection, sorted(found.arrived), OutboxState.ACCEPTED, now_ns)
    absent = [row for row in doubtful if row["row_id"] not in found.arrived]
    for row in absent:
        if row["suspect"]:
            # Its identifier is spent: Stripe took it once and dropped it. A person sends it anew.
            sending.settle(
                connection, [row["row_id"]], OutboxState.QUARANTINED, now_ns, row["suspect"]
            )
    sending.clear_doubt(
        connection, [*found.arrived, *(row["row_id"] for row in absent if not row["suspect"])]
    )


def _rows(connection: Connection, lane: Lane, event_name: str, hour_s: int) -> list[RowMapping]:
    """Every row of that hour that was ever sent under that name."""
    return list(
        connection.execute(
            select(
                OUTBOX.c.row_id,
                OUTBOX.c.quantity,
                OUTBOX.c.state,
                STRIPE_DELIVERIES.c.doubt_since_ns,
                STRIPE_DELIVERIES.c.last_attempt_ns,
                STRIPE_DELIVERIES.c.suspect,
            )
            .join(STRIPE_DELIVERIES, STRIPE_DELIVERIES.c.row_id == OUTBOX.c.row_id)
            .where(
                OUTBOX.c.customer_id == lane.customer_id,
                OUTBOX.c.meter == lane.meter,
                OUTBOX.c.hour_s == hour_s,
                STRIPE_DELIVERIES.c.event_name == event_name,
            )
        ).mappings()
    )
