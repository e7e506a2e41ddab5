"""What Stripe's meters have counted of our usage, per customer, meter and hour: read and kept.

Sums are read per meter and customer, by hours, on the hour; hours without events are left out;
they lag behind events ("List billing meter event summaries").
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, exists, select, update

from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.database import Database
from appliance.controlplane.payments.delivery import HOUR_S, SETTLED_AFTER_S, Sum
from appliance.controlplane.payments.stripe_objects import StripeApi
from appliance.controlplane.payments.stripe_tables import (
    STRIPE_DELIVERIES,
    STRIPE_OBJECTS,
    STRIPE_READINGS,
    insert_new,
)
from appliance.domain.clock import Clock

SECOND_NS: Final = 1_000_000_000
TAKEN: Final = (OutboxState.ACCEPTED, OutboxState.RECONCILED)
SPAN_S: Final = 30 * 24 * HOUR_S  # read in one go
READ_AGAIN_S: Final = 600  # an hour that does not agree is read again after this


@dataclass(frozen=True, slots=True)
class Stream:
    """One meter of Stripe for one customer, and the hours of it that interest."""

    customer_id: str
    stripe_customer: str
    meter: str
    event_name: str
    meter_id: str
    hours: tuple[int, ...]


class Facts:
    """Reads Stripe's sums and keeps them; rows that they bear out become `reconciled`."""

    def __init__(self, database: Database, api: StripeApi, clock: Clock) -> None:
        self._database = database
        self._api = api
        self._clock = clock

    async def read(self, from_s: int, until_s: int) -> int:
        """Read every sum of these hours that we sent anything for; how many hours were read."""
        streams = await self._database.aread(
            lambda connection: _sent_streams(connection, from_s, until_s)
        )
        return await self._read(streams)

    async def round(self) -> int:
        """Read what should have settled by now and is not yet reconciled."""
        now_ns = self._clock.wall_ns()
        streams = await self._database.aread(lambda connection: _unconfirmed(connection, now_ns))
        return await self._read(streams)

    async def _read(self, streams: list[Stream]) -> int:
        count = 0
        for stream in streams:
            for hours in _spans(stream.hours):
                sums = await self._api.summaries(
                    stream.meter_id, stream.stripe_customer, hours[0], hours[-1] + HOUR_S
                )
                now_ns = self._clock.wall_ns()
                await self._database.arun(
                    lambda connection: _keep(connection, stream, hours, sums, now_ns)  # noqa: B023 - runs at once
                )
                count += len(hours)
        return count


def keep_reading(
    connection: Connection,
    customer_id: str,
    meter: str,
    event_name: str,
    hour_s: int,
    quantity: int,
    now_ns: int,
) -> Sum:
    """Store what was read; since when it has read the same stays while it does."""
    readings = STRIPE_READINGS
    one = and_(
        readings.c.customer_id == customer_id,
        readings.c.event_name == event_name,
        readings.c.hour_s == hour_s,
    )
    fresh: dict[str, int] = {"quantity": quantity, "same_since_ns": now_ns, "read_at_ns": now_ns}
    key = {"meter": meter, "customer_id": customer_id, "event_name": event_name, "hour_s": hour_s}
    if not insert_new(connection, readings, key | fresh):
        before = connection.execute(select(readings).where(one)).mappings().one()
        if before["quantity"] == quantity:
            fresh["same_since_ns"] = before["same_since_ns"]
        connection.execute(update(readings).where(one).values(**fresh))
    return Sum(quantity, fresh["same_since_ns"] // SECOND_NS, now_ns // SECOND_NS)


def _keep(
    connection: Connection, stream: Stream, hours: list[int], sums: dict[int, int], now_ns: int
) -> None:
    """Store each hour's sum; also of hours that only Stripe knows, for those are drift."""
    for hour_s in sorted({*hours, *sums}):
        sum_ = keep_reading(
            connection,
            stream.customer_id,
            stream.meter,
            stream.event_name,
            hour_s,
            sums.get(hour_s, 0),
            now_ns,
        )
        _confirm(connection, stream, hour_s, sum_, now_ns)


def _confirm(connection: Connection, stream: Stream, hour_s: int, sum_: Sum, now_ns: int) -> None:
    """Rows of an hour are reconciled when Stripe's sum is theirs and none is in doubt."""
    rows = connection.execute(
        select(OUTBOX.c.row_id, OUTBOX.c.quantity, OUTBOX.c.state)
        .join(STRIPE_DELIVERIES, STRIPE_DELIVERIES.c.row_id == OUTBOX.c.row_id)
        .where(
            OUTBOX.c.customer_id == stream.customer_id,
            OUTBOX.c.meter == stream.meter,  # told by the event's name as well; it has the index
            OUTBOX.c.hour_s == hour_s,
            STRIPE_DELIVERIES.c.event_name == stream.event_name,
        )
    ).all()
    taken = sum(row.quantity for row in rows if row.state in TAKEN)
    in_doubt = any(row.state in {OutboxState.SENDING, OutboxState.AMBIGUOUS} for row in rows)
    if in_doubt or taken != sum_.quantity:
        return
    connection.execute(
        update(OUTBOX)
        .where(
            OUTBOX.c.row_id.in_([row.row_id for row in rows]),
            OUTBOX.c.state == OutboxState.ACCEPTED,
        )
        .values(state=OutboxState.RECONCILED, settled_at_ns=now_ns)
    )


def _sent_streams(connection: Connection, from_s: int, until_s: int) -> list[Stream]:
    return _streams(
        connection,
        and_(
            OUTBOX.c.hour_s >= from_s,
            OUTBOX.c.hour_s < until_s,
            OUTBOX.c.first_sent_at_ns.is_not(None),
        ),
    )


def _unconfirmed(connection: Connection, now_ns: int) -> list[Stream]:
    """Accepted rows that Stripe should show by now, unless their hour was just read."""
    readings = STRIPE_READINGS
    just_read = exists().where(
        readings.c.customer_id == OUTBOX.c.customer_id,
        readings.c.event_name == STRIPE_DELIVERIES.c.event_name,
        readings.c.hour_s == OUTBOX.c.hour_s,
        readings.c.read_at_ns > now_ns - READ_AGAIN_S * SECOND_NS,
    )
    return _streams(
        connection,
        and_(
            OUTBOX.c.state == OutboxState.ACCEPTED,
            OUTBOX.c.settled_at_ns <= now_ns - SETTLED_AFTER_S * SECOND_NS,
            ~just_read,
        ),
    )


def _streams(connection: Connection, wanted: ColumnElement[bool]) -> list[Stream]:
    """The hours of the rows that are wanted, by meter of Stripe and customer."""
    meters, customers = STRIPE_OBJECTS.alias("meters"), STRIPE_OBJECTS.alias("customers")
    rows = connection.execute(
        select(
            OUTBOX.c.customer_id,
            customers.c.stripe_id,
            OUTBOX.c.meter,
            STRIPE_DELIVERIES.c.event_name,
            meters.c.stripe_id,
            OUTBOX.c.hour_s,
        )
        .join(STRIPE_DELIVERIES, STRIPE_DELIVERIES.c.row_id == OUTBOX.c.row_id)
        .join(
            meters,
            and_(meters.c.kind == "meter", meters.c.key == STRIPE_DELIVERIES.c.event_name),
        )
        .join(
            customers,
            and_(customers.c.kind == "customer", customers.c.key == OUTBOX.c.customer_id),
        )
        .where(wanted)
        .distinct()
        .order_by(OUTBOX.c.customer_id, STRIPE_DELIVERIES.c.event_name, OUTBOX.c.hour_s)
    )
    hours: dict[tuple[str, str, str, str, str], list[int]] = defaultdict(list)
    for customer_id, stripe_customer, meter, event_name, meter_id, hour_s in rows:
        hours[customer_id, stripe_customer, meter, event_name, meter_id].append(hour_s)
    return [Stream(*key, tuple(some)) for key, some in hours.items()]


def _spans(hours: tuple[int, ...]) -> list[list[int]]:
    """Ascending hours in runs that are read in one go."""
    spans: list[list[int]] = []
    for hour_s in hours:
        if spans and hour_s - spans[-1][0] < SPAN_S:
            spans[-1].append(hour_s)
        else:
            spans.append([hour_s])
    return spans
