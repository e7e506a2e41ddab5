"""What we ask of Stripe and what it answers, in our own words: plain values, no SDK objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

OUR_KEY: Final = "crosslogic_key"  # the member of an object's metadata that names it as ours
FROM_KEY: Final = "crosslogic_from"  # of a subscription item: the moment it bills usage from
LATE_KEY: Final = "late_key"  # the same for an invoice item of late usage


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """`value` has at most 15 digits, `event_name` and `identifier` at most 100 characters."""

    event_name: str
    identifier: str
    stripe_customer: str
    value: int
    timestamp_s: int


@dataclass(frozen=True, slots=True)
class Meter:
    meter_id: str
    event_name: str
    active: bool


@dataclass(frozen=True, slots=True)
class NewPrice:
    """`unit_amount` is the price of one unit in the currency's minor unit, in decimal digits.

    `meter_id` None makes a flat monthly price per unit of quantity.
    """

    lookup_key: str
    product_id: str
    currency: str
    unit_amount: str
    nickname: str
    meter_id: str | None


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """A monthly subscription whose periods are calendar months of UTC."""

    stripe_customer: str
    prices: Sequence[str]
    quantity: int | None  # of each; None where it is metered
    key: str  # our key, in its metadata
    backdate_s: int | None
    anchor_s: int
    days_until_due: int


@dataclass(frozen=True, slots=True)
class SubscriptionItem:
    item_id: str
    price_id: str
    covered_from_s: int  # usage from here on is billed by it


@dataclass(frozen=True, slots=True)
class Subscription:
    subscription_id: str
    status: str
    start_s: int
    key: str
    items: tuple[SubscriptionItem, ...]


@dataclass(frozen=True, slots=True)
class NewInvoiceItem:
    stripe_customer: str
    late_key: str
    currency: str
    unit_amount: str
    quantity: int
    period_start_s: int
    period_end_s: int
    description: str


@dataclass(frozen=True, slots=True)
class InvoiceItem:
    item_id: str
    late_key: str
    invoice_id: str | None


@dataclass(frozen=True, slots=True)
class Invoice:
    invoice_id: str
    stripe_customer: str
    subscription: str
    status: str
    period_start_s: int
    period_end_s: int
    finalizes_at_s: int | None  # None: it does not close by itself
    currency: str
    total_minor: int
    paid_minor: int


@dataclass(frozen=True, slots=True)
class NewGrant:
    """Billing credits: an amount of money that metered usage is paid from first."""

    stripe_customer: str
    key: str
    name: str
    currency: str
    amount_minor: int
    category: str  # paid, promotional
    effective_at_s: int | None
    expires_at_s: int | None


@dataclass(frozen=True, slots=True)
class Grant:
    grant_id: str
    key: str
    voided: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """A webhook whose signature held: what kind, and which object it speaks of."""

    event_id: str
    type: str
    object_id: str


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What Stripe says of meter events that it took and could not use afterwards.

    `samples` are (reason, idempotency key of the request, message); only samples, not all.
    """

    event_id: str
    meter_id: str
    window_start_s: int
    window_end_s: int
    error_count: int
    samples: tuple[tuple[str, str, str], ...]


class StripeApi(Protocol):
    """The calls we make. Each raises a `StripeError` of `stripe_errors`; `key` is idempotency."""

    async def send_meter_event(self, event: MeterEvent, key: str) -> None: ...

    async def meters(self) -> list[Meter]: ...

    async def create_meter(self, event_name: str, display_name: str, key: str) -> Meter: ...

    async def summaries(
        self, meter_id: str, stripe_customer: str, from_s: int, until_s: int
    ) -> dict[int, int]:
        """Quantity per hour that has any; both moments on the hour, the last one exclusive."""
        ...

    async def product(self, product_id: str) -> bool: ...

    async def create_product(self, product_id: str, name: str, key: str) -> None: ...

    async def price(self, lookup_key: str) -> str | None: ...

    async def create_price(self, price: NewPrice, key: str) -> str: ...

    async def customers_since(self, since_s: int) -> dict[str, str]:
        """Our customer id to Stripe's, of the customers made there since that moment."""
        ...

    async def create_customer(self, customer_id: str, name: str, email: str, key: str) -> str: ...

    async def subscriptions(self, stripe_customer: str) -> list[Subscription]: ...

    async def subscription(self, subscription_id: str) -> Subscription: ...

    async def create_subscription(self, new: NewSubscription, key: str) -> Subscription: ...

    async def cancel_subscription(self, subscription_id: str, key: str) -> None:
        """End it now; what was paid ahead is given back on the next invoice."""
        ...

    async def add_item(self, subscription: str, price_id: str, key: str) -> SubscriptionItem: ...

    async def invoice_items(self, stripe_customer: str, since_s: int) -> list[InvoiceItem]: ...

    async def create_invoice_item(self, item: NewInvoiceItem, key: str) -> InvoiceItem: ...

    async def invoices(self, stripe_customer: str, since_s: int) -> list[Invoice]: ...

    async def invoice(self, invoice_id: str) -> Invoice: ...

    async def put_off_finalisation(self, invoice_id: str, until_s: int, key: str) -> Invoice: ...

    async def grants(self, stripe_customer: str) -> list[Grant]: ...

    async def create_grant(self, grant: NewGrant, key: str) -> Grant: ...

    async def error_report(self, event_id: str) -> ErrorReport: ...

    def open_webhook(self, raw: bytes, signature: str, secret: str, now_s: int) -> Notice: ...

    async def close(self) -> None: ...
