"""Billing through Stripe as one thing: wired from settings, turned by a loop.

Without a key nothing is made of this: rows stay `pending`, which `stripe status` shows.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from appliance.controlplane.database import Database
from appliance.controlplane.errors import DatabaseUnavailable
from appliance.controlplane.payments.deliverer import Deliverer, Round
from appliance.controlplane.payments.flat_fees import FlatFees
from appliance.controlplane.payments.grants import Granter
from appliance.controlplane.payments.invoices import Invoices
from appliance.controlplane.payments.late import LateBiller
from appliance.controlplane.payments.pace import Pace
from appliance.controlplane.payments.provisioning import CustomerCard, Provisioner
from appliance.controlplane.payments.stripe_api import StripeSdk
from appliance.controlplane.payments.stripe_errors import StripeError
from appliance.controlplane.payments.stripe_facts import Facts
from appliance.controlplane.payments.stripe_objects import StripeApi
from appliance.controlplane.payments.tariffs import open_tariffs
from appliance.controlplane.payments.webhooks import Webhooks
from appliance.controlplane.settings import ControlPlaneSettings
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

PAUSE_S: Final = 5.0  # between rounds that found nothing more to do


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of everything came to."""

    events: int
    delivered: Round
    late_items: int
    grants: int
    fees: int
    hours_read: int

    @property
    def idle(self) -> bool:
        done = self.delivered
        return not (self.events or self.late_items or done.accepted or done.planned_late)


class StripeBilling:
    """Everything that speaks to Stripe. `turn` once, or `run` until cancelled."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        clock: Clock,
        entropy: Callable[[int], bytes],
        card: Callable[[Connection, str], CustomerCard],
        *,
        currency: str,
        webhook_secret: str,
        late_quiet_s: int = 120,
    ) -> None:
        self.api = api
        self._database = database
        self._currency = currency
        self.provisioner = Provisioner(database, api, clock, entropy, card)
        self.invoices = Invoices(database, api, clock)
        self.facts = Facts(database, api, clock)
        self.webhooks = Webhooks(database, api, self.invoices, clock, entropy, webhook_secret)
        self.late = LateBiller(database, api, self.provisioner, clock, entropy)
        self.grants = Granter(database, api, self.provisioner, clock, currency)
        self.fees = FlatFees(database, api, self.provisioner, clock, currency)
        self.deliverer = Deliverer(
            database,
            api,
            self.provisioner,
            self.invoices,
            clock,
            entropy,
            Pace(clock),
            currency=currency,
            late_quiet_s=late_quiet_s,
        )

    async def turn(self) -> Turn:
        """Everything that is due, once. Raises StripeError for what concerns all of it."""
        events = await self.webhooks.round()
        delivered = await self.deliverer.round()
        late_items = await self.late.round()
        grants = await self.grants.round()
        fees = await self.fees.round()
        hours_read = await self.facts.round()
        return Turn(events, delivered, late_items, grants, fees, hours_read)

    async def provision(self) -> int:
        """Make what waiting usage needs in Stripe; how many customers and meters there are."""
        wanted = await self._database.aread(
            lambda connection: open_tariffs(connection, self._currency)
        )
        for customer_id, tariff in wanted:
            await self.provisioner.route(customer_id, tariff)
        return len(wanted)

    async def deliver(self, turns: int) -> dict[str, int]:
        """Up to so many turns, until one finds nothing more to do: what they came to."""
        total, events, late_items = Round(), 0, 0
        for _ in range(turns):
            turn = await self.turn()
            total = total.plus(turn.delivered)
            events += turn.events
            late_items += turn.late_items
            if turn.idle:
                break
        return {
            "accepted": total.accepted,
            "refused": total.refused,
            "late_items": late_items,
            "waiting": turn.delivered.waiting,
            "failures": total.failures + int(total.denied),
            "events": events,
        }

    async def run(self) -> None:
        """Turn after turn until cancelled; what goes wrong in one is left to the next."""
        while True:
            idle = True
            try:
                idle = (await self.turn()).idle
            except (StripeError, DatabaseUnavailable) as error:
                _log.warning("billing pauses", extra={"code": error.code, "reason": error.message})
            except Exception:  # noqa: BLE001 - supervision: no defect of a turn may end billing
                _log.exception("a turn of billing failed")
            if idle:
                await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        await self.api.close()


def stripe_billing(
    database: Database,
    settings: ControlPlaneSettings,
    clock: Clock,
    entropy: Callable[[int], bytes],
    card: Callable[[Connection, str], CustomerCard],
) -> StripeBilling | None:
    """None without a Stripe key: everything waits in the outbox."""
    if not settings.stripe.api_key:
        return None
    return StripeBilling(
        database,
        StripeSdk(settings.stripe.api_key, api_base=settings.stripe.api_base),
        clock,
        entropy,
        card,
        currency=settings.billing.currency,
        webhook_secret=settings.stripe.webhook_secret,
    )
