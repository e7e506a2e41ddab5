"""Capacity units in Stripe: one subscription each, of so many units at a flat monthly price.

A unit of capacity is never changed, it ends; so does its subscription. Stripe bills it ahead, the
first and the last month by the second ("Prorations"); the journal counts by the hour, at the
month's end. The sums of whole months are the same.
"""

import logging
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, func, select, update

from appliance.controlplane.billing.capacity import CAPACITY, Capacity, fee_micros
from appliance.controlplane.database import Database
from appliance.controlplane.payments.maker import Intent, Made
from appliance.controlplane.payments.metered_items import LIVE
from appliance.controlplane.payments.provisioning import Provisioner
from appliance.controlplane.payments.stripe_errors import StripeDenied, StripeError
from appliance.controlplane.payments.stripe_names import (
    flat_amount,
    flat_key,
    flat_product,
    month_of,
)
from appliance.controlplane.payments.stripe_objects import (
    NewInvoiceItem,
    NewPrice,
    NewSubscription,
    StripeApi,
)
from appliance.controlplane.payments.stripe_tables import STRIPE_OBJECTS
from appliance.domain.clock import Clock

_log = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
CAPACITY_KIND: Final = "capacity"
BILLED_WHOLE: Final = "invoice item"  # in place of the subscription that others have
LOOK_BACK_S: Final = 86_400  # before our intent, when looking for the item
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
                until_s = units.until_s
                if units.subscription is None and until_s is not None and until_s <= now_s:
                    await self._bill_whole(units, until_s)
                elif units.subscription is None:
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

    async def _bill_whole(self, units: Units, until_s: int) -> None:
        """Capacity that was over before Stripe heard of it: one invoice item for all of it."""
        customer = await self._provisioner.customer(units.customer_id)
        micros = whole_fee_micros(units, until_s)
        key = PREFIX + units.capacity_id

        async def find(intent: Intent) -> Made | None:
            for item in await self._api.invoice_items(customer, intent.since_s - LOOK_BACK_S):
                if item.late_key == key:
                    return Made(item.item_id, BILLED_WHOLE)
            return None

        async def make(intent: Intent) -> Made:
            item = NewInvoiceItem(
                stripe_customer=customer,
                late_key=key,
                currency=self._currency,
                unit_amount=flat_amount(micros, self._currency),
                quantity=1,
                period_start_s=units.since_s,
                period_end_s=until_s - 1,
                description=f"{units.model}: capacity, {units.units} tokens per second",
            )
            made = await self._api.create_invoice_item(item, intent.key)
            return Made(made.item_id, BILLED_WHOLE)

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
        select(
            CAPACITY,
            STRIPE_OBJECTS.c.stripe_id,
            STRIPE_OBJECTS.c.parent,
            STRIPE_OBJECTS.c.ended,
        )
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
        names = [name for name in Units.__dataclass_fields__ if name != "subscription"]
        units = Units(**{name: row[name] for name in names}, subscription=row["stripe_id"])
        running = row["stripe_id"] is not None and not _is_over(units, now_s)
        if not (running or row["ended"] or row["parent"] == BILLED_WHOLE):
            changing.append(units)
    return changing


def _is_over(units: Units, now_s: int) -> bool:
    return units.until_s is not None and units.until_s <= now_s


def whole_fee_micros(units: Units, until_s: int) -> int:
    """What the journal counts for capacity that ended then: the fees of its months."""
    unit = Capacity(
        units.capacity_id,
        units.customer_id,
        units.model,
        units.units,
        units.micros_per_unit_month,
        overage=False,
        since_s=units.since_s,
        until_s=until_s,
    )
    total, month_s = 0, month_of(units.since_s)[0]
    while month_s < until_s:
        total += fee_micros(unit, month_s)
        month_s = month_of(month_s)[1]
    return total


def _ended(connection: Connection, capacity_id: str) -> None:
    connection.execute(
        update(STRIPE_OBJECTS)
        .where(STRIPE_OBJECTS.c.kind == CAPACITY_KIND, STRIPE_OBJECTS.c.key == capacity_id)
        .values(ended=1)
    )
