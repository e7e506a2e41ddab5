"""Meters, prices, customers and subscription items in Stripe, made when usage first needs them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select, tuple_, update

from appliance.controlplane.billing.customers import CUSTOMERS
from appliance.controlplane.database import Database
from appliance.controlplane.errors import NotPossible
from appliance.controlplane.payments.maker import Intent, Made, Maker
from appliance.controlplane.payments.metered_items import MeteredItems
from appliance.controlplane.payments.stripe_errors import PriceTooFine
from appliance.controlplane.payments.stripe_names import Tariff
from appliance.controlplane.payments.stripe_objects import NewPrice, StripeApi
from appliance.controlplane.payments.stripe_tables import STRIPE_OBJECTS, insert_new
from appliance.domain.clock import Clock

LOOK_BACK_S: Final = 86_400  # before our intent, when looking for what we may have made


@dataclass(frozen=True, slots=True)
class CustomerCard:
    """Who is billed, as Stripe shows them."""

    customer_id: str
    name: str
    email: str = ""


def customer_card(connection: Connection, customer_id: str) -> CustomerCard:
    """Their name and address; the id in place of a name of whom nothing is known."""
    row = connection.execute(
        select(CUSTOMERS.c.name, CUSTOMERS.c.email).where(CUSTOMERS.c.customer_id == customer_id)
    ).first()
    if row is None:
        return CustomerCard(customer_id, name=customer_id)
    return CustomerCard(customer_id, name=row.name, email=row.email)


def link_customer(
    connection: Connection, customer_id: str, stripe_customer: str, now_ns: int
) -> None:
    """Bill a customer as one that Stripe has already. Raises NotPossible once there is another."""
    facts = {"stripe_id": stripe_customer, "made_at_ns": now_ns}
    key = {"kind": "customer", "key": customer_id}
    if insert_new(
        connection, STRIPE_OBJECTS, key | facts | {"intended_at_ns": now_ns, "tried_at_ns": now_ns}
    ):
        return
    one = (STRIPE_OBJECTS.c.kind == "customer") & (STRIPE_OBJECTS.c.key == customer_id)
    known = connection.execute(select(STRIPE_OBJECTS.c.stripe_id).where(one)).scalar_one()
    if known not in {None, stripe_customer}:
        raise NotPossible(
            f"Customer {customer_id} is billed as {known} already.",
            next_step="Subscriptions and usage are there; they cannot move to another.",
        )
    connection.execute(update(STRIPE_OBJECTS).where(one).values(**facts))


@dataclass(frozen=True, slots=True)
class Route:
    """Where usage of one customer at one tariff goes in Stripe."""

    stripe_customer: str
    event_name: str
    meter_id: str
    subscription: str
    covered_from_s: int


class Provisioner:
    """Makes what delivery needs. Calls for one object at a time, also between control planes."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        clock: Clock,
        entropy: Callable[[int], bytes],
        card: Callable[[Connection, str], CustomerCard],
        *,
        days_until_due: int = 30,
    ) -> None:
        self.maker = Maker(database, clock, entropy)
        self._database = database
        self._api = api
        self._card = card
        self._items = MeteredItems(database, api, self.maker, self._price_of, days_until_due)
        self._making = asyncio.Lock()

    async def route(self, customer_id: str, tariff: Tariff) -> Route:
        """The way of a meter event; made as far as it is not there yet."""
        known = await self._database.arun(
            lambda connection: route_of(connection, customer_id, tariff)
        )
        if known is not None:
            return known
        async with self._making:
            meter = await self.meter(tariff)
            price = await self.price(tariff, meter)
            customer = await self.customer(customer_id)
            item = await self._items.item(customer_id, customer, tariff, price)
        return Route(
            stripe_customer=customer,
            event_name=tariff.event_name,
            meter_id=meter,
            subscription=item.parent,
            covered_from_s=item.covered_from_s or 0,
        )

    async def meter(self, tariff: Tariff) -> str:
        async def find(_: Intent) -> Made | None:
            for meter in await self._api.meters():
                if meter.event_name == tariff.event_name and meter.active:
                    return Made(meter.meter_id)
            return None

        async def make(intent: Intent) -> Made:
            made = await self._api.create_meter(tariff.event_name, tariff.title, intent.key)
            return Made(made.meter_id)

        return (await self.maker.object("meter", tariff.event_name, find, make)).stripe_id

    async def price(self, tariff: Tariff, meter_id: str) -> str:
        lookup_key = tariff.event_name
        product_id = await self._product(tariff)

        async def find(_: Intent) -> Made | None:
            found = await self._api.price(lookup_key)
            return None if found is None else Made(found)

        async def make(intent: Intent) -> Made:
            price = NewPrice(
                lookup_key=lookup_key,
                product_id=product_id,
                currency=tariff.currency,
                unit_amount=tariff.unit_amount,
                nickname=tariff.title,
                meter_id=meter_id,
            )
            return Made(await self._api.create_price(price, intent.key))

        return (await self.maker.object("price", lookup_key, find, make)).stripe_id

    async def _price_of(self, tariff: Tariff) -> str | None:
        """The price of a tariff that waits beside another; None if none can be made of it."""
        try:
            return await self.price(tariff, await self.meter(tariff))
        except PriceTooFine:
            return None  # it says so when its own turn comes

    async def _product(self, tariff: Tariff) -> str:
        product_id = tariff.product_id

        async def find(_: Intent) -> Made | None:
            return Made(product_id) if await self._api.product(product_id) else None

        async def make(intent: Intent) -> Made:
            await self._api.create_product(product_id, tariff.title, intent.key)
            return Made(product_id)

        return (await self.maker.object("product", product_id, find, make)).stripe_id

    async def customer(self, customer_id: str) -> str:
        card = await self._database.arun(lambda connection: self._card(connection, customer_id))

        async def find(intent: Intent) -> Made | None:
            known = await self._api.customers_since(intent.since_s - LOOK_BACK_S)
            return Made(known[customer_id]) if customer_id in known else None

        async def make(intent: Intent) -> Made:
            made = await self._api.create_customer(customer_id, card.name, card.email, intent.key)
            return Made(made)

        return (await self.maker.object("customer", customer_id, find, make)).stripe_id


def route_of(connection: Connection, customer_id: str, tariff: Tariff) -> Route | None:
    """The way of a meter event if all of it is there."""
    wanted = {
        ("meter", tariff.event_name),
        ("customer", customer_id),
        ("item", f"{customer_id}/{tariff.event_name}"),
    }
    rows = connection.execute(
        select(STRIPE_OBJECTS).where(
            tuple_(STRIPE_OBJECTS.c.kind, STRIPE_OBJECTS.c.key).in_(wanted),
            STRIPE_OBJECTS.c.stripe_id.is_not(None),
        )
    ).mappings()
    found = {str(row["kind"]): row for row in rows}
    if len(found) < len(wanted):
        return None
    return Route(
        stripe_customer=found["customer"]["stripe_id"],
        event_name=tariff.event_name,
        meter_id=found["meter"]["stripe_id"],
        subscription=found["item"]["parent"],
        covered_from_s=found["item"]["covered_from_s"],
    )
