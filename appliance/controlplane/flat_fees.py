"""Capacity units in Stripe: one subscription each, of so many units at a flat monthly price.

A unit of capacity is never changed, it ends; so does its subscription. Stripe bills it ahead, the
first and the last month by the second ("Prorations"); the journal counts by the hour, at the
month's end. The sums of whole months are the same.
"""

import logging
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, func, select, update

from appliance.controlplane.capacity import CAPACITY
from appliance.controlplane.database import Database
from appliance.controlplane.maker import Intent, Made
from appliance.controlplane.metered_items import LIVE
from appliance.controlplane.provisioning import Provisioner
from appliance.controlplane.stripe_errors import StripeDenied, StripeError
from appliance.controlplane.stripe_names import flat_amount, flat_key, flat_product, month_of
from appliance.controlplane.stripe_objects import NewPrice, NewSubscription, StripeApi
from appliance.controlplane.stripe_tables import STRIPE_OBJECTS
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
CAPACITY_KIND: Final = "capacity"
PREFIX: Final = "capacity/"


@dataclass(frozen=True, slots=True)
class Units:
    """Capacity that runs now; `subscription` is Stripe's, None while there is none."""

    capacity_id: str
    customer_id: str
    model: str
    units: int
    micros_per_unit_month: int
    since_s: int
    until_s: int | None
    subscription: str | None


class FlatFees:
    """Begins the subscriptions of capacity that has begun, ends those of capacity that ended."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        provisioner: Provisioner,
        clock: Clock,
        currency: str,
        *,
        days_until_due: int = 30,
    ) -> None:
        self._database = database
        self._api = api
        self._provisioner = provisioner
        self._clock = clock
        self._currency = currency
        self._days_until_due = days_until_due

    async def round(self) -> int:
        """How many began or ended. Raises StripeDenied; other failures wait for the next round."""
        now_s = self._clock.wall_ns() // SECOND_NS
        changing = await self._database.aread(lambda connection: _changing(connection, now_s))
        done = 0
        for units in changing:
            try:
                if units.subscription is None:
                    await self._begin(units)
                else:
                    await self._end(units.capacity_id, units.subscription)
            except StripeDenied:
                raise
            except StripeError as error:
                _log.warning(
                    "a flat fee is not in Stripe yet",
                    extra={"capacity_id": units.capacity_id, "reason": error.message},
                )
            else:
                done += 1
        return done

    async def _begin(self, units: Units) -> None:
        customer = await self._provisioner.customer(units.customer_id)
        price = await self._price(units)
        key = PREFIX + units.capacity_id

        async def find(_: Intent) -> Made | None:
            for one in await self._api.subscriptions(customer):
                if one.key == key:
                    return Made(one.subscription_id)
            return None

        async def make(intent: Intent) -> Made:
            _, following_s = month_of(intent.tried_s)
            new = NewSubscription(
                stripe_customer=customer,
                prices=(price,),
                quantity=units.units,
                key=key,
                backdate_s=units.since_s,
                anchor_s=following_s,
                days_until_due=self._days_until_due,
            )
            return Made((await self._api.create_subscription(new, intent.key)).subscription_id)

        await self._provisioner.maker.object(CAPACITY_KIND, units.capacity_id, find, make)

    async def _end(self, capacity_id: str, subscription: str) -> None:
        found = await self._api.subscription(subscription)
        if found.status in LIVE:
            await self._api.cancel_subscription(subscription, f"cl-end-{capacity_id}")
        await self._database.arun(lambda connection: _ended(connection, capacity_id))

    async def _price(self, units: Units) -> str:
        """A price of its own for each model and amount."""
        product_id = flat_product(units.model)
        title = f"{units.model}: capacity, tokens per second"
        lookup_key = flat_key(units.model, units.micros_per_unit_month, self._currency)

        async def find_product(_: Intent) -> Made | None:
            return Made(product_id) if await self._api.product(product_id) else None

        async def make_product(intent: Intent) -> Made:
            await self._api.create_product(product_id, title, intent.key)
            return Made(product_id)

        async def find(_: Intent) -> Made | None:
            found = await self._api.price(lookup_key)
            return None if found is None else Made(found)

        async def make(intent: Intent) -> Made:
            price = NewPrice(
                lookup_key=lookup_key,
                product_id=product_id,
                currency=self._currency,
                unit_amount=flat_amount(units.micros_per_unit_month, self._currency),
                nickname=title,
                meter_id=None,
            )
            return Made(await self._api.create_price(price, intent.key))

        await self._provisioner.maker.object("product", product_id, find_product, make_product)
        return (await self._provisioner.maker.object("price", lookup_key, find, make)).stripe_id


def _changing(connection: Connection, now_s: int) -> list[Units]:
    """Capacity that runs and has no subscription, or that ended and still has one."""
    rows = connection.execute(
        select(CAPACITY, STRIPE_OBJECTS.c.stripe_id, STRIPE_OBJECTS.c.ended)
        .select_from(
            CAPACITY.outerjoin(
                STRIPE_OBJECTS,
                and_(
                    STRIPE_OBJECTS.c.kind == CAPACITY_KIND,
                    STRIPE_OBJECTS.c.key == CAPACITY.c.capacity_id,
                ),
            )
        )
        .where(
            CAPACITY.c.since_s <= now_s,
            func.coalesce(STRIPE_OBJECTS.c.next_try_ns, 0) <= now_s * SECOND_NS,
        )
        .order_by(CAPACITY.c.created_at_ns, CAPACITY.c.capacity_id)
    ).mappings()
    changing = []
    for row in rows:
        over = row["until_s"] is not None and row["until_s"] <= now_s
        begun = row["stripe_id"] is not None
        if over is not begun or row["ended"]:
            continue
        names = [name for name in Units.__dataclass_fields__ if name != "subscription"]
        changing.append(Units(**{name: row[name] for name in names}, subscription=row["stripe_id"]))
    return changing


def _ended(connection: Connection, capacity_id: str) -> None:
    connection.execute(
        update(STRIPE_OBJECTS)
        .where(STRIPE_OBJECTS.c.kind == CAPACITY_KIND, STRIPE_OBJECTS.c.key == capacity_id)
        .values(ended=1)
    )
