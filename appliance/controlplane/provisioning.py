"""Meters, prices, customers and subscriptions in Stripe, made when first needed, each once.

An object is made in four steps: our intent is committed, Stripe is asked whether it has the
object, it is made, its id is committed. A program killed at any of them starts with the second.
A creation whose answer did not come is repeated with the same idempotency key, so that it cannot
take effect twice; one that Stripe stored as failed, and would only replay, gets another key.

Limits: a subscription has at most 20 items (parameter `items` of "Create a subscription"), so a
customer with more meters has several. All periods are calendar months of UTC.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select, tuple_, update

from appliance.controlplane.customers import CUSTOMERS
from appliance.controlplane.database import Database
from appliance.controlplane.errors import NotPossible
from appliance.controlplane.stripe_errors import PriceTooFine, StripeError, StripeUnavailable
from appliance.controlplane.stripe_names import Tariff, month_of
from appliance.controlplane.stripe_objects import (
    NewPrice,
    NewSubscription,
    StripeApi,
    Subscription,
    SubscriptionItem,
)
from appliance.controlplane.stripe_tables import STRIPE_OBJECTS, insert_new
from appliance.controlplane.tariffs import open_tariffs
from appliance.domain.clock import Clock

ITEMS_MAX: Final = 20
HOLD_S: Final = 120  # how long one control plane may take over one object
PAUSE_S: Final = 60  # before what nobody waits for is tried again
LIVE: Final = frozenset({"active", "past_due", "unpaid", "trialing", "incomplete", "paused"})
METERED: Final = "metered"
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


@dataclass(frozen=True, slots=True)
class Made:
    """An object that exists in Stripe."""

    stripe_id: str
    parent: str = ""
    covered_from_s: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """Our right to make an object: `key` is the idempotency key of this attempt."""

    key: str
    since_s: int  # our first intent
    tried_s: int  # since when this key is used: a repeated call has to be the same call
    ended: bool  # we had one before, and it ended


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
        self._database = database
        self._api = api
        self._clock = clock
        self._entropy = entropy
        self._card = card
        self._days_until_due = days_until_due
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
            item = await self._item(customer_id, customer, tariff, price)
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

        return (await self.object("meter", tariff.event_name, find, make)).stripe_id

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

        return (await self.object("price", lookup_key, find, make)).stripe_id

    async def _product(self, tariff: Tariff) -> str:
        product_id = tariff.product_id

        async def find(_: Intent) -> Made | None:
            return Made(product_id) if await self._api.product(product_id) else None

        async def make(intent: Intent) -> Made:
            await self._api.create_product(product_id, tariff.title, intent.key)
            return Made(product_id)

        return (await self.object("product", product_id, find, make)).stripe_id

    async def customer(self, customer_id: str) -> str:
        card = await self._database.arun(lambda connection: self._card(connection, customer_id))

        async def find(intent: Intent) -> Made | None:
            known = await self._api.customers_since(intent.since_s - LOOK_BACK_S)
            return Made(known[customer_id]) if customer_id in known else None

        async def make(intent: Intent) -> Made:
            made = await self._api.create_customer(customer_id, card.name, card.email, intent.key)
            return Made(made)

        return (await self.object("customer", customer_id, find, make)).stripe_id

    async def _item(
        self, customer_id: str, stripe_customer: str, tariff: Tariff, price_id: str
    ) -> Made:
        """The subscription item that bills the tariff: on a subscription with room, or a new one.

        A new subscription begins with the month it is made in, and with every meter the customer
        has waiting; an item added to one later bills from then on, which `covered_from_s` says.
        """

        async def find(_: Intent) -> Made | None:
            for subscription in await self._ours(stripe_customer):
                for item in subscription.items:
                    if subscription.status in LIVE and item.price_id == price_id:
                        return _item_of(subscription, item)
            return None

        async def make(intent: Intent) -> Made:
            ours = await self._ours(stripe_customer)
            for subscription in ours:
                if subscription.status in LIVE and len(subscription.items) < ITEMS_MAX:
                    item = await self._api.add_item(
                        subscription.subscription_id, price_id, intent.key
                    )
                    return _item_of(subscription, item)
            known = {item.price_id for one in ours for item in one.items}
            first = not intent.ended and price_id not in known
            prices = [price_id]
            if first:
                prices += await self._others(customer_id, tariff, known)
            start_s, following_s = month_of(intent.tried_s)
            new = NewSubscription(
                stripe_customer=stripe_customer,
                prices=tuple(prices),
                quantity=None,
                key=f"{METERED}/{customer_id}",
                backdate_s=start_s if first else None,
                anchor_s=following_s,
                days_until_due=self._days_until_due,
            )
            subscription = await self._api.create_subscription(new, intent.key)
            [item] = [one for one in subscription.items if one.price_id == price_id]
            return _item_of(subscription, item)

        return await self.object("item", f"{customer_id}/{tariff.event_name}", find, make)

    async def _others(self, customer_id: str, tariff: Tariff, known: set[str]) -> list[str]:
        """Prices of what else waits for this customer and was never billed: they begin together.

        An item that is added later bills usage from then on only.
        """
        waiting = await self._database.aread(
            lambda connection: [
                other
                for _, other in open_tariffs(connection, tariff.currency, customer_id)
                if other != tariff and not _was_intended(connection, customer_id, other)
            ]
        )
        prices: list[str] = []
        for other in waiting[: ITEMS_MAX - 1]:
            try:
                price_id = await self.price(other, await self.meter(other))
            except PriceTooFine:
                continue  # it says so when its own turn comes
            if price_id not in known:
                prices.append(price_id)
        return prices

    async def _ours(self, stripe_customer: str) -> list[Subscription]:
        """Subscriptions for metered usage, also ended ones; the oldest first."""
        every = await self._api.subscriptions(stripe_customer)
        ours = [one for one in every if one.key.startswith(f"{METERED}/")]
        return sorted(ours, key=lambda one: (one.start_s, one.subscription_id))

    async def object(
        self,
        kind: str,
        key: str,
        find: Callable[[Intent], Awaitable[Made | None]],
        make: Callable[[Intent], Awaitable[Made]],
    ) -> Made:
        """The object of that kind and key, found or made. At most one of us makes it at a time."""
        now_ns = self._clock.wall_ns()
        holder = self._entropy(8).hex()
        taken = await self._database.arun(
            lambda connection: _take(connection, kind, key, holder, now_ns)
        )
        if isinstance(taken, Made):
            return taken
        if taken is None:
            raise StripeUnavailable(f"Another control plane is making the {kind} {key}.")
        try:
            made = await find(taken) or await make(taken)
        except StripeError as error:
            said = error
            await self._database.arun(
                lambda connection: _give_up(
                    connection, kind, key, holder, said, self._clock.wall_ns()
                )
            )
            raise
        await self._database.arun(
            lambda connection: _store(connection, kind, key, made, self._clock.wall_ns())
        )
        return made


def _item_of(subscription: Subscription, item: SubscriptionItem) -> Made:
    return Made(item.item_id, subscription.subscription_id, item.covered_from_s)


def _was_intended(connection: Connection, customer_id: str, tariff: Tariff) -> bool:
    """Whether the customer has, or had, an item of that tariff."""
    key = f"{customer_id}/{tariff.event_name}"
    row = connection.execute(
        select(STRIPE_OBJECTS.c.key).where(
            STRIPE_OBJECTS.c.kind == "item", STRIPE_OBJECTS.c.key == key
        )
    ).first()
    return row is not None


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


def end_items(connection: Connection, subscription: str, kept: set[str], now_ns: int) -> int:
    """Items of a subscription that no longer bill, all but `kept`: how many.

    What they billed gets an item on another subscription when it is next needed. That one does not
    reach back: the usage until now is on the old one's last invoice.
    """
    objects = STRIPE_OBJECTS
    return connection.execute(
        update(objects)
        .where(
            objects.c.kind == "item",
            objects.c.parent == subscription,
            objects.c.stripe_id.is_not(None),
            objects.c.stripe_id.not_in(kept),
        )
        .values(stripe_id=None, ended=1, tries=objects.c.tries + 1, tried_at_ns=now_ns)
    ).rowcount


def _take(
    connection: Connection, kind: str, key: str, holder: str, now_ns: int
) -> Made | Intent | None:
    """The object if it is made, else the right to make it; None while another has that right."""
    objects = STRIPE_OBJECTS
    insert_new(
        connection,
        objects,
        {"kind": kind, "key": key, "intended_at_ns": now_ns, "tried_at_ns": now_ns},
    )
    one = (objects.c.kind == kind) & (objects.c.key == key)
    taken = connection.execute(
        update(objects)
        .where(one, objects.c.stripe_id.is_(None), objects.c.held_until_ns <= now_ns)
        .values(holder=holder, held_until_ns=now_ns + HOLD_S * 1_000_000_000)
    ).rowcount
    row = connection.execute(select(objects).where(one)).mappings().one()
    if row["stripe_id"] is not None:
        return Made(row["stripe_id"], row["parent"], row["covered_from_s"])
    if not taken:
        return None
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    return Intent(
        key=f"cl-{kind}-{digest}-{row['intended_at_ns']}-{row['tries']}",
        since_s=row["intended_at_ns"] // 1_000_000_000,
        tried_s=row["tried_at_ns"] // 1_000_000_000,
        ended=bool(row["ended"]),
    )


def _give_up(
    connection: Connection, kind: str, key: str, holder: str, error: StripeError, now_ns: int
) -> None:
    """Let others try. The idempotency key stays while its first call may yet take effect."""
    objects = STRIPE_OBJECTS
    changes: dict[str, object] = {
        "holder": "",
        "held_until_ns": 0,
        "next_try_ns": now_ns + PAUSE_S * 1_000_000_000,
        "note": error.message,
    }
    if not isinstance(error, StripeUnavailable) or error.stored:
        changes |= {"tries": objects.c.tries + 1, "tried_at_ns": now_ns}
    connection.execute(
        update(objects)
        .where(objects.c.kind == kind, objects.c.key == key, objects.c.holder == holder)
        .values(**changes)
    )


def _store(connection: Connection, kind: str, key: str, made: Made, now_ns: int) -> None:
    """What exists is true whoever found it: the holder does not matter."""
    connection.execute(
        update(STRIPE_OBJECTS)
        .where(STRIPE_OBJECTS.c.kind == kind, STRIPE_OBJECTS.c.key == key)
        .values(
            stripe_id=made.stripe_id,
            parent=made.parent,
            covered_from_s=made.covered_from_s,
            made_at_ns=now_ns,
            holder="",
            held_until_ns=0,
            note="",
        )
    )
