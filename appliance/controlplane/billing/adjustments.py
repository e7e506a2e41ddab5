"""Corrections: new rows with a reason, never a change of what is there.

- Tokens that were not billed and should have been: a row of the outbox at the price of their hour.
- Tokens that were billed and should not have been: a credit over what they cost, at most as many
  as were billed for that hour. Stripe gets no negative usage.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    Table,
    Text,
    func,
    insert,
    select,
)

from appliance.controlplane import audit
from appliance.controlplane.billing import price_book
from appliance.controlplane.billing.billing_errors import BadAmount
from appliance.controlplane.billing.charging import outbox_row
from appliance.controlplane.billing.credits import grant
from appliance.controlplane.billing.journal import (
    ADJUSTMENTS,
    USAGE_REVENUE,
    Entry,
    post,
    receivable,
)
from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.billing.pricing import HOUR_S, Rate, amount_micros, meter_key
from appliance.controlplane.schema import METADATA

TOKENS_MAX: Final = 10**15 - 1

ADJUSTED: Final = Table(
    "adjustments",
    METADATA,
    Column("adjustment_id", Text, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("hour_s", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),  # tokens; below 0: credited
    Column("micros_per_million", BigInteger, nullable=False),
    Column("multiplier_bp", Integer, nullable=False),
    Column("amount_micros", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Index("adjustments_hour", "customer_id", "meter", "hour_s"),
)


@dataclass(frozen=True, slots=True)
class Correction:
    """What is to be corrected: tokens of one kind of one hour."""

    customer_id: str
    kind: str
    model: str
    region: str
    plan: str
    hour_s: int
    quantity: int

    @property
    def meter(self) -> str:
        return meter_key(self.kind, self.model, self.region, self.plan)


@dataclass(frozen=True, slots=True)
class Adjustment:
    adjustment_id: str
    customer_id: str
    meter: str
    hour_s: int
    quantity: int
    amount_micros: int
    reason: str
    created_at_ns: int


def adjust(
    connection: Connection,
    correction: Correction,
    *,
    reason: str,
    by: str,
    now_ns: int,
    entropy: Callable[[int], bytes],
) -> Adjustment:
    """Raises BadAmount: no reason, no tokens, no price, or more credited than was billed."""
    hour_s, quantity = correction.hour_s, correction.quantity
    if not reason.strip() or not quantity or abs(quantity) > TOKENS_MAX or hour_s % HOUR_S:
        raise BadAmount(
            "An adjustment needs tokens, the start of an hour, and a reason.",
            next_step="Give all three.",
        )
    rate = _rate(connection, correction)
    made = Adjustment(
        f"adj_{entropy(12).hex()}",
        correction.customer_id,
        correction.meter,
        hour_s,
        quantity,
        amount_micros(quantity, rate),
        reason,
        now_ns,
    )
    _store(connection, correction, made, rate, by)
    if quantity > 0:
        _bill(connection, correction, rate, made)
    elif made.amount_micros < 0:
        grant(
            connection,
            correction.customer_id,
            micros=-made.amount_micros,
            reason=reason,
            since_s=0,
            until_s=None,
            by=by,
            now_ns=now_ns,
            entropy=entropy,
            account=ADJUSTMENTS,
            adjustment_id=made.adjustment_id,
        )
    audit.record(
        connection,
        now_ns,
        actor=by,
        action="adjust",
        kind="usage",
        object_id=made.adjustment_id,
        name=correction.meter,
        after=f"{quantity} tokens, {made.amount_micros} micros: {reason}",
    )
    return made


def list_adjustments(connection: Connection, customer_id: str | None = None) -> list[Adjustment]:
    """Oldest first."""
    query = select(ADJUSTED).order_by(ADJUSTED.c.created_at_ns, ADJUSTED.c.adjustment_id)
    if customer_id is not None:
        query = query.where(ADJUSTED.c.customer_id == customer_id)
    return [_adjustment(row) for row in connection.execute(query)]


def _rate(connection: Connection, correction: Correction) -> Rate:
    """The price of the hour. Of tokens to be credited, also that they were billed."""
    rate = price_book.current(connection).rate(
        correction.model, correction.kind, correction.plan, correction.region, correction.hour_s
    )
    if rate is None:
        raise BadAmount(
            f"There is no price of {correction.meter} for that hour.",
            next_step="See `cic control-plane prices show`.",
        )
    if correction.quantity < 0:
        left = _billed(connection, correction) + _credited(connection, correction)
        if left + correction.quantity < 0:
            raise BadAmount(
                f"Of {correction.meter}, {left} tokens of that hour are billed and not credited.",
                next_step="Credit no more than that.",
            )
    return rate


def _billed(connection: Connection, correction: Correction) -> int:
    total = connection.execute(
        select(func.coalesce(func.sum(OUTBOX.c.quantity), 0)).where(
            OUTBOX.c.customer_id == correction.customer_id,
            OUTBOX.c.meter == correction.meter,
            OUTBOX.c.hour_s == correction.hour_s,
            OUTBOX.c.state != OutboxState.CANCELLED.value,
        )
    ).scalar_one()
    return int(total)


def _credited(connection: Connection, correction: Correction) -> int:
    """Tokens of earlier corrections that were credited, as a number not above 0."""
    total = connection.execute(
        select(func.coalesce(func.sum(ADJUSTED.c.quantity), 0)).where(
            ADJUSTED.c.customer_id == correction.customer_id,
            ADJUSTED.c.meter == correction.meter,
            ADJUSTED.c.hour_s == correction.hour_s,
            ADJUSTED.c.quantity < 0,
        )
    ).scalar_one()
    return int(total)


def _store(
    connection: Connection, correction: Correction, made: Adjustment, rate: Rate, by: str
) -> None:
    connection.execute(
        insert(ADJUSTED).values(
            adjustment_id=made.adjustment_id,
            customer_id=made.customer_id,
            meter=made.meter,
            kind=correction.kind,
            model=correction.model,
            region=correction.region,
            plan=correction.plan,
            hour_s=made.hour_s,
            quantity=made.quantity,
            micros_per_million=rate.micros_per_million,
            multiplier_bp=rate.multiplier_bp,
            amount_micros=made.amount_micros,
            reason=made.reason,
            created_at_ns=made.created_at_ns,
            created_by=by,
        )
    )


def _bill(connection: Connection, correction: Correction, rate: Rate, made: Adjustment) -> None:
    row = outbox_row(
        source=made.adjustment_id,
        customer_id=correction.customer_id,
        kind=correction.kind,
        model=correction.model,
        region=correction.region,
        plan=correction.plan,
        hour_s=correction.hour_s,
        quantity=correction.quantity,
        rate=rate,
        now_ns=made.created_at_ns,
    )
    connection.execute(insert(OUTBOX).values(**row))
    amount = made.amount_micros
    if amount:
        lines = ((receivable(made.customer_id), amount), (USAGE_REVENUE, -amount))
        entry_id = f"adjustment:{made.adjustment_id}"
        entry = Entry(entry_id, made.customer_id, made.hour_s, made.created_at_ns, lines)
        post(connection, [entry])


def _adjustment(row: Any) -> Adjustment:
    return Adjustment(
        row.adjustment_id,
        row.customer_id,
        row.meter,
        row.hour_s,
        row.quantity,
        row.amount_micros,
        row.reason,
        row.created_at_ns,
    )
