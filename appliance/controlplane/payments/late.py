"""Usage that no meter event can bill any more: an invoice item for its own period and price.

Its period's invoice is final, or its hour is (nearly) as old as Stripe takes events, or lies
before the subscription began to bill the meter. No usage is ever given another hour instead.

An item is planned first, with its rows, in one transaction, so that what it bills is fixed. After
an attempt that may have arrived Stripe is asked whether it has it (metadata `late_key`); only if
not, it is made. Listing shows what was made ("List all invoice items"); searching, which lags, is
not used.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, exists, func, insert, or_, select, update

from appliance.controlplane.billing.outbox_table import OUTBOX, OutboxState
from appliance.controlplane.database import Database
from appliance.controlplane.payments.delivery import HOUR_S, HourFate, back_off_s
from appliance.controlplane.payments.provisioning import Provisioner
from appliance.controlplane.payments.stripe_errors import (
    PriceTooFine,
    StripeDenied,
    StripeError,
    StripeRefused,
    StripeUnavailable,
)
from appliance.controlplane.payments.stripe_names import Tariff, minor_digits, month_of
from appliance.controlplane.payments.stripe_objects import InvoiceItem, NewInvoiceItem, StripeApi
from appliance.controlplane.payments.stripe_tables import LATE_ITEMS, STRIPE_DELIVERIES
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
HOLD_S: Final = 120
LOOK_BACK_S: Final = 86_400  # before the plan, when looking for the item
HOURS_AT_ONCE: Final = 800  # a month has 744; SQLite takes 32,766 values in a statement


def plan(
    connection: Connection,
    customer_id: str,
    late: Mapping[tuple[Tariff, int], HourFate],
    now_ns: int,
    entropy: Callable[[int], bytes],
    *,
    quiet_s: int,
) -> int:
    """Bind rows of late hours to an item per tariff and month; how many rows.

    Rows that an earlier attempt may have brought to Stripe are left out: they are looked up first.
    A month whose newest row is younger than `quiet_s` waits: more of it is coming in.
    """
    months: dict[tuple[Tariff, int], list[int]] = {}
    reasons: dict[tuple[Tariff, int], set[str]] = {}
    for (tariff, hour_s), fate in late.items():
        month = (tariff, month_of(hour_s)[0])
        months.setdefault(month, []).append(hour_s)
        reasons.setdefault(month, set()).add(fate.reason)
    planned = 0
    for (tariff, month_s), hours in months.items():
        rows = _billable_late(customer_id, tariff, hours)
        newest_ns, count = connection.execute(
            select(func.max(OUTBOX.c.created_at_ns), func.count()).where(rows)
        ).one()
        if not count or now_ns - newest_ns < quiet_s * SECOND_NS:
            continue
        late_key = f"late_{entropy(12).hex()}"
        reason = "; ".join(sorted(reasons[tariff, month_s]))
        bound = connection.execute(
            update(OUTBOX).where(rows).values(late_key=late_key, note=reason)
        ).rowcount
        if bound:
            _store_plan(connection, customer_id, tariff, late_key, reason, now_ns)
        planned += bound
    return planned


def _billable_late(customer_id: str, tariff: Tariff, hours: list[int]) -> Any:
    """Rows of these hours that Stripe surely does not have."""
    absent = exists().where(
        STRIPE_DELIVERIES.c.row_id == OUTBOX.c.row_id,
        STRIPE_DELIVERIES.c.doubt_since_ns.is_(None),
        STRIPE_DELIVERIES.c.suspect == "",
    )
    return and_(
        OUTBOX.c.customer_id == customer_id,
        OUTBOX.c.meter == tariff.meter,
        OUTBOX.c.micros_per_million == tariff.micros_per_million,
        OUTBOX.c.multiplier_bp == tariff.multiplier_bp,
        OUTBOX.c.hour_s.in_(hours),
        OUTBOX.c.late_key.is_(None),
        or_(
            OUTBOX.c.state == OutboxState.PENDING,
            and_(OUTBOX.c.state == OutboxState.SENDING, absent),
        ),
    )


def _store_plan(
    connection: Connection,
    customer_id: str,
    tariff: Tariff,
    late_key: str,
    reason: str,
    now_ns: int,
) -> None:
    """What the item bills is what its rows, just bound to it, add up to."""
    quantity, first_s, last_s = connection.execute(
        select(
            func.sum(OUTBOX.c.quantity), func.min(OUTBOX.c.hour_s), func.max(OUTBOX.c.hour_s)
        ).where(OUTBOX.c.late_key == late_key)
    ).one()
    connection.execute(
        insert(LATE_ITEMS).values(
            late_key=late_key,
            customer_id=customer_id,
            meter=tariff.meter,
            title=tariff.title,
            currency=tariff.currency,
            micros_per_million=tariff.micros_per_million,
            multiplier_bp=tariff.multiplier_bp,
            period_start_s=first_s,
            period_end_s=last_s + HOUR_S - 1,  # inclusive, per the parameter's description
            quantity=int(quantity),
            reason=reason,
            planned_at_ns=now_ns,
        )
    )


@dataclass(frozen=True, slots=True)
class LateItem:
    """A planned item that is ours to make now."""

    late_key: str
    customer_id: str
    title: str
    currency: str
    micros_per_million: int
    multiplier_bp: int
    period_start_s: int
    period_end_s: int
    quantity: int
    planned_at_ns: int
    tries: int  # before this one
    stored_failures: int


class LateBiller:
    """Makes the planned items, each once; several control planes may do so at the same time."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        provisioner: Provisioner,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._api = api
        self._provisioner = provisioner
        self._clock = clock
        self._entropy = entropy

    async def round(self, limit: int = 100) -> int:
        """Make up to `limit` planned items; how many were made. Raises StripeDenied."""
        made = 0
        for _ in range(limit):
            holder = self._entropy(8).hex()
            now_ns = self._clock.wall_ns()
            item = await self._database.arun(
                lambda connection: _take(connection, holder, now_ns)  # noqa: B023 - runs at once
            )
            if item is None:
                break
            made += await self._bill(item)
        return made

    async def _bill(self, item: LateItem) -> bool:
        try:
            stripe_id, invoice_id = await self._found_or_made(item)
        except StripeError as error:
            said = error
            jitter = int.from_bytes(self._entropy(4), "big")
            now_ns = self._clock.wall_ns()
            await self._database.arun(
                lambda connection: _not_made(connection, item, said, now_ns, jitter)
            )
            if isinstance(error, StripeDenied):
                raise
            _log.warning(
                "an invoice item was not made",
                extra={"late_key": item.late_key, "reason": error.message},
            )
            return False
        now_ns = self._clock.wall_ns()
        await self._database.arun(
            lambda connection: _made(connection, item.late_key, stripe_id, invoice_id, now_ns)
        )
        _log.info(
            "late usage is billed",
            extra={"late_key": item.late_key, "customer_id": item.customer_id},
        )
        return True

    async def _found_or_made(self, item: LateItem) -> tuple[str, str | None]:
        unit_amount = minor_digits(item.micros_per_million, item.multiplier_bp, item.currency)
        customer = await self._provisioner.customer(item.customer_id)
        if item.tries:  # none may be there before the first: its take is committed before the call
            since_s = item.planned_at_ns // SECOND_NS - LOOK_BACK_S
            for known in await self._api.invoice_items(customer, since_s):
                if known.late_key == item.late_key:
                    return known.item_id, known.invoice_id
        new = NewInvoiceItem(
            stripe_customer=customer,
            late_key=item.late_key,
            currency=item.currency,
            unit_amount=unit_amount,
            quantity=item.quantity,
            period_start_s=item.period_start_s,
            period_end_s=item.period_end_s,
            description=f"{item.title}, reported late",
        )
        made = await self._api.create_invoice_item(
            new, f"cl-{item.late_key}-{item.stored_failures}"
        )
        return made.item_id, made.invoice_id


def _take(connection: Connection, holder: str, now_ns: int) -> LateItem | None:
    items = LATE_ITEMS
    row = (
        connection.execute(
            select(items)
            .where(
                items.c.stripe_id.is_(None),
                items.c.refused == "",
                items.c.held_until_ns <= now_ns,
                items.c.next_try_ns <= now_ns,
            )
            .order_by(items.c.planned_at_ns, items.c.late_key)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    connection.execute(
        update(items)
        .where(items.c.late_key == row["late_key"])
        .values(
            holder=holder,
            held_until_ns=now_ns + HOLD_S * SECOND_NS,
            tries=items.c.tries + 1,
        )
    )
    return LateItem(**{name: row[name] for name in LateItem.__dataclass_fields__})


def _made(
    connection: Connection, late_key: str, stripe_id: str, invoice_id: str | None, now_ns: int
) -> None:
    connection.execute(
        update(LATE_ITEMS)
        .where(LATE_ITEMS.c.late_key == late_key)
        .values(stripe_id=stripe_id, invoice_id=invoice_id, made_at_ns=now_ns, held_until_ns=0)
    )
    connection.execute(
        update(OUTBOX)
        .where(OUTBOX.c.late_key == late_key)
        .values(state=OutboxState.LATE, settled_at_ns=now_ns)
    )


def note_invoices(connection: Connection, items: Iterable[InvoiceItem]) -> None:
    """Which invoice took which late item."""
    for item in items:
        if item.late_key and item.invoice_id is not None:
            connection.execute(
                update(LATE_ITEMS)
                .where(LATE_ITEMS.c.late_key == item.late_key)
                .values(invoice_id=item.invoice_id)
            )


def _not_made(
    connection: Connection, item: LateItem, error: StripeError, now_ns: int, jitter: int
) -> None:
    """Tried again later, or given to a person when Stripe (or the price) rules it out."""
    if isinstance(error, StripeRefused | PriceTooFine):
        connection.execute(
            update(LATE_ITEMS)
            .where(LATE_ITEMS.c.late_key == item.late_key)
            .values(refused=error.message, held_until_ns=0)
        )
        connection.execute(
            update(OUTBOX)
            .where(OUTBOX.c.late_key == item.late_key)
            .values(state=OutboxState.QUARANTINED, settled_at_ns=now_ns, note=error.message)
        )
        return
    stored = isinstance(error, StripeUnavailable) and error.stored
    wait_s = back_off_s(item.tries + 1, jitter)
    connection.execute(
        update(LATE_ITEMS)
        .where(LATE_ITEMS.c.late_key == item.late_key)
        .values(
            stored_failures=LATE_ITEMS.c.stored_failures + int(stored),
            next_try_ns=now_ns + wait_s * SECOND_NS,
            held_until_ns=0,
        )
    )
