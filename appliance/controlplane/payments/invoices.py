"""Invoices as Stripe has them: which hours they may still take, and putting off that they close.

Facts of Stripe:

- The invoice of a subscription's period is a draft for at least an hour and counts the period's
  usage when it is finalised ("Configure an invoice finalization grace period").
- A draft that advances by itself may be given another moment of finalisation, up to five years
  ahead ("Schedule invoice finalization").

Usage that is on its way when its period ends therefore has the time it needs: while rows of the
period are undelivered, finalisation is put off, but no longer than `HELD_MAX_S`. Should we not run
at all, Stripe closes the invoice on its own, and what comes after that is billed late.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, RowMapping, select, update

from appliance.controlplane.database import Database
from appliance.controlplane.payments.delivery import HOUR_S, PeriodState
from appliance.controlplane.payments.stripe_names import month_of
from appliance.controlplane.payments.stripe_objects import Invoice, StripeApi
from appliance.controlplane.payments.stripe_tables import STRIPE_INVOICES, insert_new
from appliance.domain.clock import Clock

FRESH_FOR_S: Final = 60  # a draft read so recently is not read again
TIME_LEFT_S: Final = 1_800  # a draft that closes sooner takes nothing more unless put off
PUT_OFF_BY_S: Final = 2 * HOUR_S
HELD_MAX_S: Final = 72 * HOUR_S  # after the period's end
MADE_WITHIN_S: Final = 6 * HOUR_S  # after the period's end, the draft exists
DRAFT: Final = "draft"


def put_off_until_s(invoice: Invoice, now_s: int) -> int | None:
    """The later moment a draft needs so that usage can still be sent, None if it has time left.

    Also None when the period ended so long ago that the invoice shall close without the rest.
    """
    if invoice.status != DRAFT or invoice.finalizes_at_s is None:
        return None
    if invoice.finalizes_at_s - now_s > TIME_LEFT_S:
        return None
    until_s = now_s + PUT_OFF_BY_S
    return until_s if until_s <= invoice.period_end_s + HELD_MAX_S else None


def period_state(invoice: Invoice | None, period_end_s: int, now_s: int) -> PeriodState:
    """Whether usage of a period that ended at `period_end_s` can still be metered.

    `invoice` None: Stripe has none for it.
    """
    if now_s < period_end_s:
        return PeriodState.OPEN
    if invoice is None:
        over = now_s >= period_end_s + MADE_WITHIN_S
        return PeriodState.FINAL if over else PeriodState.UNKNOWN
    if invoice.status != DRAFT:
        return PeriodState.FINAL
    finalizes_s = invoice.finalizes_at_s
    if finalizes_s is None or finalizes_s - now_s > TIME_LEFT_S:
        return PeriodState.OPEN
    return PeriodState.UNKNOWN  # about to close: what is not there by then is late


class Invoices:
    """Reads invoices of Stripe, keeps what it read, and puts their finalisation off."""

    def __init__(self, database: Database, api: StripeApi, clock: Clock) -> None:
        self._database = database
        self._api = api
        self._clock = clock

    async def period(self, stripe_customer: str, subscription: str, hour_s: int) -> PeriodState:
        """Whether usage of that hour can still be metered on that subscription."""
        start_s, end_s = month_of(hour_s)
        now_s = self._clock.wall_ns() // 1_000_000_000
        if now_s < end_s:
            return PeriodState.OPEN
        invoice = await self._database.aread(
            lambda connection: _known(connection, stripe_customer, subscription, hour_s, now_s)
        )
        if invoice is None:
            every = await self._api.invoices(stripe_customer, start_s)
            await self._keep(every)
            invoice = _covering(every, subscription, hour_s)
        if invoice is not None:
            invoice = await self._held_open(invoice, now_s)
        return period_state(invoice, end_s, now_s)

    async def read_again(self, invoice_id: str) -> Invoice:
        """The invoice as it is now, whatever was said of it."""
        invoice = await self._api.invoice(invoice_id)
        await self._keep([invoice])
        return invoice

    async def _held_open(self, invoice: Invoice, now_s: int) -> Invoice:
        until_s = put_off_until_s(invoice, now_s)
        if until_s is None:
            return invoice
        key = f"cl-hold-{invoice.invoice_id}-{until_s}"
        later = await self._api.put_off_finalisation(invoice.invoice_id, until_s, key)
        await self._keep([later], held=True)
        return later

    async def _keep(self, invoices: Iterable[Invoice], *, held: bool = False) -> None:
        now_ns = self._clock.wall_ns()
        every = list(invoices)
        await self._database.arun(
            lambda connection: keep_invoices(connection, every, now_ns, held=held)
        )


def keep_invoices(
    connection: Connection, invoices: Iterable[Invoice], now_ns: int, *, held: bool = False
) -> None:
    for invoice in invoices:
        facts = {
            "stripe_customer": invoice.stripe_customer,
            "subscription": invoice.subscription,
            "status": invoice.status,
            "period_start_s": invoice.period_start_s,
            "period_end_s": invoice.period_end_s,
            "finalizes_at_s": invoice.finalizes_at_s,
            "currency": invoice.currency,
            "total_minor": invoice.total_minor,
            "paid_minor": invoice.paid_minor,
            "read_at_ns": now_ns,
        }
        if not insert_new(
            connection, STRIPE_INVOICES, {"invoice_id": invoice.invoice_id, "held": 0, **facts}
        ):
            connection.execute(
                update(STRIPE_INVOICES)
                .where(STRIPE_INVOICES.c.invoice_id == invoice.invoice_id)
                .values(held=STRIPE_INVOICES.c.held + int(held), **facts)
            )


def _known(
    connection: Connection, stripe_customer: str, subscription: str, hour_s: int, now_s: int
) -> Invoice | None:
    """What we have read of the invoice, unless it is a draft that may have closed since."""
    invoices = STRIPE_INVOICES
    row = (
        connection.execute(
            select(invoices)
            .where(
                invoices.c.stripe_customer == stripe_customer,
                invoices.c.subscription == subscription,
                invoices.c.period_start_s <= hour_s,
                invoices.c.period_end_s > hour_s,
            )
            .order_by(invoices.c.period_end_s.desc())
        )
        .mappings()
        .first()
    )
    if row is None:
        return None
    if row["status"] == DRAFT and now_s - row["read_at_ns"] // 1_000_000_000 > FRESH_FOR_S:
        return None
    return _invoice(row)


def _invoice(row: RowMapping) -> Invoice:
    return Invoice(
        invoice_id=row["invoice_id"],
        stripe_customer=row["stripe_customer"],
        subscription=row["subscription"],
        status=row["status"],
        period_start_s=row["period_start_s"],
        period_end_s=row["period_end_s"],
        finalizes_at_s=row["finalizes_at_s"],
        currency=row["currency"],
        total_minor=row["total_minor"],
        paid_minor=row["paid_minor"],
    )


def _covering(invoices: Iterable[Invoice], subscription: str, hour_s: int) -> Invoice | None:
    """A final one first: what one invoice has closed, no other opens again."""
    fitting = [
        one
        for one in invoices
        if one.subscription == subscription and one.period_start_s <= hour_s < one.period_end_s
    ]
    return min(fitting, key=lambda one: one.status == DRAFT, default=None)
