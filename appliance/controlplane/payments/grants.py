"""Credits given to customers, as billing credits in Stripe.

Facts of Stripe ("Billing credits", "Create a credit grant"): a grant is a whole number of minor
units, is spent when an invoice is finalised, applies to metered prices only, and must not have
expired. So a credit of a fraction of a cent is rounded up, in the customer's favour, and invoice
items of late usage are not paid from it.
"""

import logging
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, exists, or_, select

from appliance.controlplane.billing.credits import CREDITS
from appliance.controlplane.database import Database
from appliance.controlplane.payments.maker import Intent, Made
from appliance.controlplane.payments.provisioning import Provisioner
from appliance.controlplane.payments.stripe_errors import StripeDenied, StripeError
from appliance.controlplane.payments.stripe_names import minor_rounded_up
from appliance.controlplane.payments.stripe_objects import NewGrant, StripeApi
from appliance.controlplane.payments.stripe_tables import STRIPE_OBJECTS
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
GRANT: Final = "grant"
NAME_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Owed:
    """A credit that Stripe does not know yet."""

    credit_id: str
    customer_id: str
    micros: int
    since_s: int
    until_s: int | None
    reason: str
    correction: bool


class Granter:
    """Makes a credit grant of each credit, once."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        provisioner: Provisioner,
        clock: Clock,
        currency: str,
    ) -> None:
        self._database = database
        self._api = api
        self._provisioner = provisioner
        self._clock = clock
        self._currency = currency

    async def round(self) -> int:
        """How many were made. Raises StripeDenied; what else fails is left to the next round."""
        now_ns = self._clock.wall_ns()
        owed = await self._database.aread(lambda connection: _owed(connection, now_ns))
        made = 0
        for credit in owed:
            try:
                await self._grant(credit, now_ns // SECOND_NS)
            except StripeDenied:
                raise
            except StripeError as error:
                _log.warning(
                    "a credit is not in Stripe yet",
                    extra={"credit_id": credit.credit_id, "reason": error.message},
                )
            else:
                made += 1
        return made

    async def _grant(self, credit: Owed, now_s: int) -> None:
        customer = await self._provisioner.customer(credit.customer_id)

        async def find(_: Intent) -> Made | None:
            for known in await self._api.grants(customer):
                if known.key == credit.credit_id:
                    return Made(known.grant_id)
            return None

        async def make(intent: Intent) -> Made:
            grant = NewGrant(
                stripe_customer=customer,
                key=credit.credit_id,
                name=credit.reason[:NAME_MAX],
                currency=self._currency,
                amount_minor=minor_rounded_up(credit.micros, self._currency),
                category="paid" if credit.correction else "promotional",
                effective_at_s=credit.since_s if credit.since_s > now_s else None,
                expires_at_s=credit.until_s,
            )
            return Made((await self._api.create_grant(grant, intent.key)).grant_id)

        await self._provisioner.maker.object(GRANT, credit.credit_id, find, make)


def _owed(connection: Connection, now_ns: int) -> list[Owed]:
    """Credits without a grant that still can have one."""
    granted = exists().where(
        STRIPE_OBJECTS.c.kind == GRANT,
        STRIPE_OBJECTS.c.key == CREDITS.c.credit_id,
        or_(
            STRIPE_OBJECTS.c.stripe_id.is_not(None),
            STRIPE_OBJECTS.c.next_try_ns > now_ns,
        ),
    )
    rows = connection.execute(
        select(CREDITS)
        .where(
            and_(
                ~granted,
                or_(CREDITS.c.until_s.is_(None), CREDITS.c.until_s > now_ns // SECOND_NS),
            )
        )
        .order_by(CREDITS.c.created_at_ns, CREDITS.c.credit_id)
    ).mappings()
    return [
        Owed(
            credit_id=row["credit_id"],
            customer_id=row["customer_id"],
            micros=row["granted_micros"],
            since_s=row["since_s"],
            until_s=row["until_s"],
            reason=row["reason"],
            correction=bool(row["adjustment_id"]),
        )
        for row in rows
    ]
