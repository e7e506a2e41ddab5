"""What Stripe tells us: taken in once, answered at once, acted on afterwards.

- The signature is checked over the raw body and the moment has to be within 300 s; the event's id
  is committed before the answer, so that Stripe sends again what we did not keep; a repetition
  changes nothing ("Receive Stripe events in your webhook endpoint").
- Events come in any order and may be old: the payload only says what to look at, the present
  state is asked of the API.
- After an error report ("v1.billing.meter.error_report_triggered", "…no_meter_found") meter events
  that were taken have been dropped. Their rows are looked up in Stripe's sums (`lookup`).
"""

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, select, update

from appliance.controlplane.database import Database
from appliance.controlplane.payments import suspicion
from appliance.controlplane.payments.delivery import back_off_s
from appliance.controlplane.payments.invoices import DRAFT, Invoices
from appliance.controlplane.payments.lanes import wake
from appliance.controlplane.payments.late import note_invoices
from appliance.controlplane.payments.metered_items import LIVE, end_items
from appliance.controlplane.payments.stripe_errors import StripeDenied, StripeError, StripeRefused
from appliance.controlplane.payments.stripe_objects import Notice, StripeApi
from appliance.controlplane.payments.stripe_tables import STRIPE_EVENTS, STRIPE_OBJECTS, insert_new
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
LOOK_BACK_S: Final = 62 * 86_400  # for invoice items that an invoice has taken
ERROR_REPORTS: Final = frozenset(
    {"v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"}
)
# What the endpoint in Stripe has to be subscribed to; `cic control-plane stripe status` prints it.
WANTED: Final = (
    *sorted(ERROR_REPORTS),
    "invoice.created",
    "invoice.finalized",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.voided",
    "customer.subscription.updated",
    "customer.subscription.deleted",
)


class Webhooks:
    """`receive` for the HTTP handler, `round` for the loop."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        invoices: Invoices,
        clock: Clock,
        entropy: Callable[[int], bytes],
        secret: str,
    ) -> None:
        self._database = database
        self._api = api
        self._invoices = invoices
        self._clock = clock
        self._entropy = entropy
        self._secret = secret

    async def receive(self, raw: bytes, signature: str) -> bool:
        """Keep the event; False if we have it already. Raises BadStripeEvent: answer 400."""
        now_ns = self._clock.wall_ns()
        notice = self._api.open_webhook(raw, signature, self._secret, now_ns // SECOND_NS)
        event = {
            "event_id": notice.event_id,
            "type": notice.type,
            "object_id": notice.object_id,
            "received_at_ns": now_ns,
        }
        return await self._database.arun(
            lambda connection: insert_new(connection, STRIPE_EVENTS, event)
        )

    async def round(self, limit: int = 100) -> int:
        """Act on events that were kept; how many are done. Raises StripeDenied."""
        now_ns = self._clock.wall_ns()
        notices = await self._database.aread(lambda connection: _due(connection, now_ns, limit))
        done = 0
        for notice in notices:
            done += await self._handled(notice)
        return done

    async def _handled(self, notice: Notice) -> bool:
        """Doing it twice, as two control planes might, does no harm."""
        try:
            note = await self._act(notice)
        except StripeRefused as error:
            note = error.message  # it is gone, or not ours to see: nothing to act on
        except StripeError as error:
            said = error.message
            jitter = int.from_bytes(self._entropy(4), "big")
            await self._database.arun(
                lambda connection: _again(
                    connection, notice.event_id, said, self._clock.wall_ns(), jitter
                )
            )
            if isinstance(error, StripeDenied):
                raise
            return False
        await self._database.arun(
            lambda connection: _done(connection, notice.event_id, note, self._clock.wall_ns())
        )
        _log.info(
            "an event of Stripe is handled",
            extra={"event_id": notice.event_id, "type": notice.type, "note": note},
        )
        return True

    async def _act(self, notice: Notice) -> str:
        """What was done about it, in a few words."""
        if notice.type in ERROR_REPORTS:
            return await self._suspect(notice)
        if notice.type.startswith("invoice."):
            return await self._invoice(notice)
        if notice.type.startswith("customer.subscription."):
            return await self._subscription(notice)
        return "nothing to do"

    async def _suspect(self, notice: Notice) -> str:
        report = await self._api.error_report(notice.event_id)
        named, others = await self._database.arun(
            lambda connection: suspicion.suspect(connection, report)
        )
        return f"{report.error_count} errors; {named} rows named, {others} more under suspicion"

    async def _invoice(self, notice: Notice) -> str:
        """A draft gets the usage that waits; a final one shows which late items it took."""
        invoice = await self._invoices.read_again(notice.object_id)
        if invoice.status == DRAFT:
            await self._database.arun(
                lambda connection: wake(connection, _customer(connection, invoice.stripe_customer))
            )
            return "a draft: what waits is sent now"
        since_s = self._clock.wall_ns() // SECOND_NS - LOOK_BACK_S
        items = await self._api.invoice_items(invoice.stripe_customer, since_s)
        await self._database.arun(lambda connection: note_invoices(connection, items))
        return invoice.status

    async def _subscription(self, notice: Notice) -> str:
        subscription = await self._api.subscription(notice.object_id)
        kept = (
            {item.item_id for item in subscription.items} if subscription.status in LIVE else set()
        )
        now_ns = self._clock.wall_ns()
        ended = await self._database.arun(
            lambda connection: end_items(connection, notice.object_id, kept, now_ns)
        )
        return f"{subscription.status}, {ended} of its items no longer bill"


def _due(connection: Connection, now_ns: int, limit: int) -> list[Notice]:
    events = STRIPE_EVENTS
    rows = connection.execute(
        select(events.c.event_id, events.c.type, events.c.object_id)
        .where(events.c.handled_at_ns.is_(None), events.c.next_try_ns <= now_ns)
        .order_by(events.c.received_at_ns, events.c.event_id)
        .limit(limit)
    )
    return [Notice(*row) for row in rows]


def _done(connection: Connection, event_id: str, note: str, now_ns: int) -> None:
    connection.execute(
        update(STRIPE_EVENTS)
        .where(STRIPE_EVENTS.c.event_id == event_id)
        .values(handled_at_ns=now_ns, note=note)
    )


def _again(connection: Connection, event_id: str, note: str, now_ns: int, jitter: int) -> None:
    tries = connection.execute(
        select(STRIPE_EVENTS.c.tries).where(STRIPE_EVENTS.c.event_id == event_id)
    ).scalar_one()
    connection.execute(
        update(STRIPE_EVENTS)
        .where(STRIPE_EVENTS.c.event_id == event_id)
        .values(
            tries=tries + 1,
            note=note,
            next_try_ns=now_ns + back_off_s(tries + 1, jitter) * SECOND_NS,
        )
    )


def _customer(connection: Connection, stripe_customer: str) -> str | None:
    """Our id of a customer of Stripe's; None wakes every lane."""
    found: str | None = connection.execute(
        select(STRIPE_OBJECTS.c.key).where(
            STRIPE_OBJECTS.c.kind == "customer", STRIPE_OBJECTS.c.stripe_id == stripe_customer
        )
    ).scalar()
    return found
