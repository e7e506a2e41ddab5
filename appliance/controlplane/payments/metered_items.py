"""Subscriptions for metered usage, and the item of each that bills a tariff.

- A subscription has at most 20 items (parameter `items` of "Create a subscription"), so a customer
  with more meters has several. All periods are calendar months of UTC.
- One that is new begins with the month it is made in, and with every meter the customer has
  waiting ("Create a backdated subscription"). An item that is added to one later bills usage from
  then on ("Manage your usage-based billing setup"); `covered_from_s` says from when.
- What was billed before, on a subscription that has ended, does not reach back again.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import Connection, or_, select, update

from appliance.controlplane.database import Database
from appliance.controlplane.payments.maker import Intent, Made, Maker
from appliance.controlplane.payments.stripe_names import Tariff, month_of
from appliance.controlplane.payments.stripe_objects import (
    NewSubscription,
    StripeApi,
    Subscription,
    SubscriptionItem,
)
from appliance.controlplane.payments.stripe_tables import STRIPE_OBJECTS
from appliance.controlplane.payments.tariffs import open_tariffs

ITEMS_MAX: Final = 20
LIVE: Final = frozenset({"active", "past_due", "unpaid", "trialing", "incomplete", "paused"})
METERED: Final = "metered"


class MeteredItems:
    """Finds or makes the item that bills a tariff. `price_of` makes the price of another one."""

    def __init__(
        self,
        database: Database,
        api: StripeApi,
        maker: Maker,
        price_of: Callable[[Tariff], Awaitable[str | None]],
        days_until_due: int,
    ) -> None:
        self._database = database
        self._api = api
        self._maker = maker
        self._price_of = price_of
        self._days_until_due = days_until_due

    async def item(
        self, customer_id: str, stripe_customer: str, tariff: Tariff, price_id: str
    ) -> Made:
        """On a subscription that has it, or has room for it, or else on a new one."""

        async def find(_: Intent) -> Made | None:
            for subscription in await self._ours(stripe_customer):
                made = _item_on(subscription, price_id)
                if subscription.status in LIVE and made is not None:
                    return made
            return None

        async def make(intent: Intent) -> Made:
            ours = await self._ours(stripe_customer)
            roomy = [one for one in ours if one.status in LIVE and len(one.items) < ITEMS_MAX]
            if not roomy:
                begun = await self._begun(
                    customer_id, stripe_customer, tariff, price_id, ours, ended=intent.ended
                )
                made = _item_on(begun, price_id)
                if made is not None:
                    return made
                roomy = [begun]  # another lane had begun it, without this tariff
            item = await self._api.add_item(roomy[0].subscription_id, price_id, intent.key)
            return _item_of(roomy[0], item)

        return await self._maker.object("item", f"{customer_id}/{tariff.event_name}", find, make)

    async def _begun(
        self,
        customer_id: str,
        stripe_customer: str,
        tariff: Tariff,
        price_id: str,
        ours: list[Subscription],
        *,
        ended: bool,
    ) -> Subscription:
        """The customer's next subscription. All lanes share its intent, and so its key."""
        key = f"{METERED}/{customer_id}/{len(ours)}"
        known = {item.price_id for one in ours for item in one.items}
        begun: list[Subscription] = []

        async def find(_: Intent) -> Made | None:
            for one in await self._ours(stripe_customer):
                if one.key == key:
                    begun.append(one)
                    return Made(one.subscription_id)
            return None

        async def make(intent: Intent) -> Made:
            first = not ended and price_id not in known
            others = await self._others(customer_id, tariff, known) if first else []
            start_s, following_s = month_of(intent.tried_s)
            new = NewSubscription(
                stripe_customer=stripe_customer,
                prices=(price_id, *others),
                quantity=None,
                key=key,
                backdate_s=start_s if first else None,
                anchor_s=following_s,
                days_until_due=self._days_until_due,
            )
            begun.append(await self._api.create_subscription(new, intent.key))
            return Made(begun[0].subscription_id)

        made = await self._maker.object("subscription", key, find, make)
        return begun[0] if begun else await self._api.subscription(made.stripe_id)

    async def _others(self, customer_id: str, tariff: Tariff, known: set[str]) -> list[str]:
        """Prices of what else waits for this customer and was never billed."""
        waiting = await self._database.aread(
            lambda connection: [
                other
                for _, other in open_tariffs(connection, tariff.currency, customer_id)
                if other != tariff and not _was_billed(connection, customer_id, other)
            ]
        )
        prices: list[str] = []
        for other in waiting:
            if len(prices) == ITEMS_MAX - 1:
                break
            price_id = await self._price_of(other)
            if price_id is not None and price_id not in known:
                prices.append(price_id)
        return prices

    async def _ours(self, stripe_customer: str) -> list[Subscription]:
        """Subscriptions for metered usage, also ended ones; the oldest first."""
        every = await self._api.subscriptions(stripe_customer)
        ours = [one for one in every if one.key.startswith(f"{METERED}/")]
        return sorted(ours, key=lambda one: (one.start_s, one.subscription_id))


def _item_on(subscription: Subscription, price_id: str) -> Made | None:
    for item in subscription.items:
        if item.price_id == price_id:
            return _item_of(subscription, item)
    return None


def _item_of(subscription: Subscription, item: SubscriptionItem) -> Made:
    return Made(item.item_id, subscription.subscription_id, item.covered_from_s)


def _was_billed(connection: Connection, customer_id: str, tariff: Tariff) -> bool:
    """Whether the customer has, or had, an item of that tariff."""
    objects = STRIPE_OBJECTS
    row = connection.execute(
        select(objects.c.key).where(
            objects.c.kind == "item",
            objects.c.key == f"{customer_id}/{tariff.event_name}",
            or_(objects.c.stripe_id.is_not(None), objects.c.ended == 1),
        )
    ).first()
    return row is not None


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
