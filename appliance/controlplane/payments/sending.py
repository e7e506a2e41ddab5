"""The outbox as delivery reads and writes it: what waits, a batch, what came of it.

Every function is one transaction's worth and decides nothing that `delivery` decides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    func,
    insert,
    or_,
    select,
    update,
)

from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.payments.delivery import (
    VALUE_MAX,
    Fate,
    HourFate,
    Step,
    next_step,
    pieces,
)
from appliance.controlplane.payments.lanes import OPEN_STATES, Lane
from appliance.controlplane.payments.provisioning import Route
from appliance.controlplane.payments.stripe_names import Tariff, another_identifier
from appliance.controlplane.payments.stripe_objects import MeterEvent
from appliance.controlplane.payments.stripe_tables import (
    STRIPE_ATTEMPTS,
    STRIPE_DELIVERIES,
    STRIPE_LANES,
    insert_new,
)

SECOND_NS: Final = 1_000_000_000
SENDING_MAX: Final = 500  # rows of one lane in doubt that are looked at together

HourOf = tuple[Tariff, int]


class Outcome(StrEnum):
    """What came of one attempt."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # it was there already
    REFUSED = "refused"
    UNANSWERED = "unanswered"  # it may have arrived
    TURNED_AWAY = "turned away"  # it did not arrive
    NOT_MADE = "not made"  # the call was not begun


ARRIVED: Final = frozenset({Outcome.ACCEPTED, Outcome.DUPLICATE})
ABSENT: Final = frozenset({Outcome.TURNED_AWAY, Outcome.NOT_MADE})


@dataclass(frozen=True, slots=True)
class Sending:
    """One row that is committed to be sent now. `doubted`: an earlier attempt may have arrived."""

    row_id: str
    key: str
    event: MeterEvent
    doubted: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    sending: Sending
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be sent; only if nothing is: hours to be looked up, and how many rows wait."""

    events: tuple[Sending, ...] = ()
    look_up: tuple[HourOf, ...] = ()
    waiting: int = 0


def claim(
    connection: Connection,
    lane: Lane,
    holder: str,
    routes: Mapping[Tariff, Route],
    fates: Mapping[HourOf, HourFate],
    now_ns: int,
    entropy: Callable[[int], bytes],
    limit: int,
) -> Batch:
    """Make up to `limit` rows `sending`, each with the key of its attempt; nothing without lease.

    Rows of an hour that has to be looked up wait: each that arrived would move the sum.
    """
    if not _is_held(connection, lane, holder, now_ns):
        return Batch()
    by_price = {(t.micros_per_million, t.multiplier_bp): t for t in routes}
    doubtful = [
        (row, by_price[row["micros_per_million"], row["multiplier_bp"]])
        for row in connection.execute(_sending_rows(lane)).mappings()
        if (row["micros_per_million"], row["multiplier_bp"]) in by_price
    ]
    look_up: dict[HourOf, None] = {}
    again: list[tuple[RowMapping, Tariff]] = []
    waiting = 0
    for row, tariff in doubtful:
        fate = fates.get((tariff, row["hour_s"]))
        step = Step.WAIT if fate is None else _step(row, fate, now_ns)
        if step is Step.LOOK_UP:
            look_up[tariff, row["hour_s"]] = None
        elif step is Step.SEND:
            again.append((row, tariff))
        waiting += step is not Step.SEND
    again = [(row, tariff) for row, tariff in again if (tariff, row["hour_s"]) not in look_up]
    chosen = again[:limit]
    if len(chosen) < limit:
        fresh = _fresh_rows(connection, lane, fates, look_up, limit - len(chosen))
        chosen += [
            (row, by_price[row["micros_per_million"], row["multiplier_bp"]]) for row in fresh
        ]
    events = tuple(
        _begin(connection, row, routes[tariff], fates[tariff, row["hour_s"]], now_ns, entropy)
        for row, tariff in chosen
    )
    if events:
        return Batch(events)
    return Batch(look_up=tuple(look_up), waiting=waiting + _waiting_fresh(connection, lane))


def finish(connection: Connection, attempts: Iterable[Attempt], now_ns: int) -> None:
    """Write down what came of a batch. A row that is no longer `sending` stays as it is."""
    for attempt in attempts:
        row_id, outcome = attempt.sending.row_id, attempt.outcome
        connection.execute(
            update(STRIPE_ATTEMPTS)
            .where(STRIPE_ATTEMPTS.c.idempotency_key == attempt.sending.key)
            .values(ended_at_ns=now_ns, outcome=outcome, message=attempt.message)
        )
        if outcome in ARRIVED:
            settle(connection, [row_id], OutboxState.ACCEPTED, now_ns)
        elif outcome is Outcome.REFUSED and attempt.sending.doubted:
            # This attempt did not arrive; an earlier one may have. Stripe's sum will tell.
            connection.execute(
                update(STRIPE_DELIVERIES)
                .where(STRIPE_DELIVERIES.c.row_id == row_id)
                .values(suspect=attempt.message)
            )
        elif outcome is Outcome.REFUSED:
            settle(connection, [row_id], OutboxState.QUARANTINED, now_ns, attempt.message)
        elif outcome in ABSENT and not attempt.sending.doubted:
            clear_doubt(connection, [row_id])
        if outcome is Outcome.NOT_MADE:  # others were in its way: it is first next time
            connection.execute(
                update(STRIPE_DELIVERIES)
                .where(STRIPE_DELIVERIES.c.row_id == row_id)
                .values(attempts=STRIPE_DELIVERIES.c.attempts - 1)
            )


def settle(
    connection: Connection,
    row_ids: Sequence[str],
    state: OutboxState,
    now_ns: int,
    note: str = "",
) -> int:
    """Rows that were being sent come to that state."""
    return connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.row_id.in_(row_ids), OUTBOX.c.state == OutboxState.SENDING)
        .values(state=state, settled_at_ns=now_ns, note=note)
    ).rowcount


def clear_doubt(connection: Connection, row_ids: Sequence[str]) -> None:
    """Stripe surely does not have them: they may be sent, or billed late."""
    connection.execute(
        update(STRIPE_DELIVERIES)
        .where(STRIPE_DELIVERIES.c.row_id.in_(row_ids))
        .values(doubt_since_ns=None, suspect="")
    )


def split_large(connection: Connection, customer_id: str, meter: str) -> int:
    """Rows of more tokens than one event can carry become several; tokens and money stay."""
    rows = connection.execute(
        select(OUTBOX).where(
            OUTBOX.c.customer_id == customer_id,
            OUTBOX.c.meter == meter,
            OUTBOX.c.state == OutboxState.PENDING,
            OUTBOX.c.quantity > VALUE_MAX,
        )
    ).mappings()
    count = 0
    for row in rows.all():
        count += 1
        first, *others = _split(row)
        connection.execute(
            update(OUTBOX)
            .where(OUTBOX.c.row_id == row["row_id"])
            .values(quantity=first["quantity"], amount_micros=first["amount_micros"])
        )
        connection.execute(insert(OUTBOX), others)
    return count


def _split(row: RowMapping) -> list[dict[str, Any]]:
    quantities = pieces(row["quantity"])
    left = row["amount_micros"]
    split = []
    for number, quantity in enumerate(quantities):
        last = number == len(quantities) - 1
        amount = left if last else row["amount_micros"] * quantity // row["quantity"]
        left -= amount
        ids = {"row_id": f"{row['row_id']}~{number}"} if number else {}
        if number:
            ids["identifier"] = another_identifier(row["identifier"], number)
        split.append({**row, **ids, "quantity": quantity, "amount_micros": amount})
    return split


def open_in(customer_id: str, meter: str) -> ColumnElement[bool]:
    """Rows of a lane that are to be delivered."""
    return and_(
        OUTBOX.c.customer_id == customer_id,
        OUTBOX.c.meter == meter,
        OUTBOX.c.state.in_(OPEN_STATES),
        OUTBOX.c.late_key.is_(None),
    )


def _is_held(connection: Connection, lane: Lane, holder: str, now_ns: int) -> bool:
    return (
        connection.execute(
            select(STRIPE_LANES.c.holder).where(
                STRIPE_LANES.c.customer_id == lane.customer_id,
                STRIPE_LANES.c.meter == lane.meter,
                STRIPE_LANES.c.holder == holder,
                STRIPE_LANES.c.leased_until_ns > now_ns,
            )
        ).first()
        is not None
    )


def _sending_rows(lane: Lane) -> Select[Any]:
    return (
        select(
            OUTBOX,
            STRIPE_DELIVERIES.c.doubt_since_ns,
            STRIPE_DELIVERIES.c.suspect,
            STRIPE_DELIVERIES.c.attempts,
        )
        .join(STRIPE_DELIVERIES, STRIPE_DELIVERIES.c.row_id == OUTBOX.c.row_id)
        .where(open_in(lane.customer_id, lane.meter), OUTBOX.c.state == OutboxState.SENDING)
        .order_by(STRIPE_DELIVERIES.c.attempts, OUTBOX.c.hour_s, OUTBOX.c.row_id)
        .limit(SENDING_MAX)
    )


def _step(row: RowMapping, fate: HourFate, now_ns: int) -> Step:
    doubt_ns = row["doubt_since_ns"]
    return next_step(
        fate.fate,
        None if doubt_ns is None else doubt_ns // SECOND_NS,
        suspect=bool(row["suspect"]),
        now_s=now_ns // SECOND_NS,
    )


def _fresh_rows(
    connection: Connection,
    lane: Lane,
    fates: Mapping[HourOf, HourFate],
    look_up: Mapping[HourOf, None],
    limit: int,
) -> Sequence[RowMapping]:
    """Pending rows of hours that are to be metered, the oldest hour first."""
    hours: dict[tuple[int, int], list[int]] = {}
    for (tariff, hour_s), fate in fates.items():
        if fate.fate is Fate.METERED and (tariff, hour_s) not in look_up:
            price = (tariff.micros_per_million, tariff.multiplier_bp)
            hours.setdefault(price, []).append(hour_s)
    if not hours:
        return []
    of_hours = or_(
        *(
            and_(
                OUTBOX.c.micros_per_million == micros,
                OUTBOX.c.multiplier_bp == multiplier_bp,
                OUTBOX.c.hour_s.in_(some),
            )
            for (micros, multiplier_bp), some in hours.items()
        )
    )
    return (
        connection.execute(
            select(OUTBOX)
            .where(
                open_in(lane.customer_id, lane.meter),
                OUTBOX.c.state == OutboxState.PENDING,
                of_hours,
            )
            .order_by(OUTBOX.c.hour_s, OUTBOX.c.row_id)
            .limit(limit)
        )
        .mappings()
        .all()
    )


def _waiting_fresh(connection: Connection, lane: Lane) -> int:
    """Pending rows of the lane that were not taken."""
    return connection.execute(
        select(func.count())
        .select_from(OUTBOX)
        .where(open_in(lane.customer_id, lane.meter), OUTBOX.c.state == OutboxState.PENDING)
    ).scalar_one()


def _begin(
    connection: Connection,
    row: RowMapping,
    route: Route,
    fate: HourFate,
    now_ns: int,
    entropy: Callable[[int], bytes],
) -> Sending:
    """One row becomes `sending`; its attempt is on disk before the call is made."""
    row_id = row["row_id"]
    key = f"cl-{entropy(16).hex()}"
    insert_new(
        connection,
        STRIPE_DELIVERIES,
        {"row_id": row_id, "event_name": route.event_name, "attempts": 0, "suspect": ""},
    )
    doubt_ns = connection.execute(
        select(STRIPE_DELIVERIES.c.doubt_since_ns).where(STRIPE_DELIVERIES.c.row_id == row_id)
    ).scalar_one()
    connection.execute(
        update(STRIPE_DELIVERIES)
        .where(STRIPE_DELIVERIES.c.row_id == row_id)
        .values(
            event_name=route.event_name,
            attempts=STRIPE_DELIVERIES.c.attempts + 1,
            doubt_since_ns=now_ns if doubt_ns is None else doubt_ns,
            last_attempt_ns=now_ns,
        )
    )
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.row_id == row_id)
        .values(
            state=OutboxState.SENDING,
            first_sent_at_ns=func.coalesce(OUTBOX.c.first_sent_at_ns, now_ns),
        )
    )
    connection.execute(
        insert(STRIPE_ATTEMPTS).values(idempotency_key=key, row_id=row_id, sent_at_ns=now_ns)
    )
    event = MeterEvent(
        event_name=route.event_name,
        identifier=row["identifier"],
        stripe_customer=route.stripe_customer,
        value=row["quantity"],
        timestamp_s=fate.timestamp_s,
    )
    return Sending(row_id, key, event, doubted=doubt_ns is not None)
