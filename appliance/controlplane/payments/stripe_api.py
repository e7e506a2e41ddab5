"""Stripe through its own SDK: the one module that knows the library, its shapes and its errors.

- Retries are ours (`max_network_retries` 0): an attempt must be on disk before it is made.
- Every call has a time limit and its own idempotency key. The API key is never logged or shown.
- Amounts travel as decimal digits: the SDK writes a small `Decimal` as `1E-7`, which is none.
- Facts of limits and errors: "Record usage for billing with the API", "Error handling",
  "Idempotent requests" and "Receive Stripe events in your webhook endpoint" of Stripe's pages.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Final, TypeVar, cast

import aiohttp
import stripe

from appliance.controlplane.payments import stripe_shapes as shapes
from appliance.controlplane.payments.stripe_errors import (
    BadStripeEvent,
    StripeDenied,
    StripeDuplicate,
    StripeError,
    StripeNotConfigured,
    StripeRefused,
    StripeUnavailable,
)
from appliance.controlplane.payments.stripe_objects import (
    FROM_KEY,
    LATE_KEY,
    OUR_KEY,
    ErrorReport,
    Grant,
    Invoice,
    InvoiceItem,
    Meter,
    MeterEvent,
    NewGrant,
    NewInvoiceItem,
    NewPrice,
    NewSubscription,
    Notice,
    Subscription,
    SubscriptionItem,
)

DUPLICATE: Final = "an event already exists with identifier"  # compared in lower case
TOLERANCE_S: Final = 300  # of a webhook's moment, both ways
CUSTOMER_KEY: Final = "stripe_customer_id"  # members of a meter event's payload
VALUE_KEY: Final = "value"
PAGE: Final = 100  # the most Stripe gives in one page of a list

_T = TypeVar("_T")


class StripeSdk:
    """The `StripeApi` over the network.

    `api_base` is `https://api.stripe.com`, or the address of a double. A call takes at most
    `timeout_s`, the connection `connect_s` of it.
    """

    def __init__(
        self, api_key: str, *, api_base: str = "", timeout_s: float = 20.0, connect_s: float = 5.0
    ) -> None:
        if not api_key:
            raise StripeNotConfigured(
                "There is no Stripe key; billing waits.",
                next_step="Set [stripe] api_key in the control plane's settings.",
            )
        stripe.enable_telemetry = False  # nothing about this machine leaves it
        self._http = stripe.AIOHTTPClient(
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=connect_s)
        )
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base, "meter_events": api_base} if api_base else None,
            max_network_retries=0,
            http_client=self._http,
        )

    async def close(self) -> None:
        await cast("Any", self._http).close_async()  # the SDK left its type out

    # --- meters and their events

    async def send_meter_event(self, event: MeterEvent, key: str) -> None:
        await _asked(
            self._client.v1.billing.meter_events.create_async(
                {
                    "event_name": event.event_name,
                    "identifier": event.identifier,
                    "timestamp": event.timestamp_s,
                    "payload": {CUSTOMER_KEY: event.stripe_customer, VALUE_KEY: str(event.value)},
                },
                {"idempotency_key": key},
            )
        )

    async def meters(self) -> list[Meter]:
        pages = self._client.v1.billing.meters.list_async({"limit": PAGE})
        return [shapes.meter(found) async for found in _every(pages)]

    async def create_meter(self, event_name: str, display_name: str, key: str) -> Meter:
        made = await _asked(
            self._client.v1.billing.meters.create_async(
                {
                    "event_name": event_name,
                    "display_name": display_name,
                    "default_aggregation": {"formula": "sum"},
                    "customer_mapping": {"event_payload_key": CUSTOMER_KEY, "type": "by_id"},
                    "value_settings": {"event_payload_key": VALUE_KEY},
                },
                {"idempotency_key": key},
            )
        )
        return shapes.meter(made.to_dict())

    async def summaries(
        self, meter_id: str, stripe_customer: str, from_s: int, until_s: int
    ) -> dict[int, int]:
        pages = self._client.v1.billing.meters.event_summaries.list_async(
            meter_id,
            {
                "customer": stripe_customer,
                "start_time": from_s,
                "end_time": until_s,
                "value_grouping_window": "hour",
                "limit": PAGE,
            },
        )
        sums: dict[int, int] = {}
        async for found in _every(pages):
            hour_s, quantity = shapes.summary(found)
            sums[hour_s] = quantity
        return sums

    # --- what is sold, and to whom

    async def product(self, product_id: str) -> bool:
        try:
            await _asked(self._client.v1.products.retrieve_async(product_id))
        except StripeRefused as error:
            if error.reason == "resource_missing":
                return False
            raise
        return True

    async def create_product(self, product_id: str, name: str, key: str) -> None:
        await _asked(
            self._client.v1.products.create_async(
                {"id": product_id, "name": name, "metadata": {OUR_KEY: product_id}},
                {"idempotency_key": key},
            )
        )

    async def price(self, lookup_key: str) -> str | None:
        pages = self._client.v1.prices.list_async({"lookup_keys": [lookup_key], "limit": 1})
        async for found in _every(pages):
            return str(found["id"])
        return None

    async def create_price(self, price: NewPrice, key: str) -> str:
        recurring: dict[str, str] = {"interval": "month"}
        if price.meter_id is not None:
            recurring |= {"usage_type": "metered", "meter": price.meter_id}
        made = await _asked(
            self._client.v1.prices.create_async(
                cast(
                    "Any",  # the amount as digits, see the top of this module
                    {
                        "currency": price.currency,
                        "product": price.product_id,
                        "lookup_key": price.lookup_key,
                        "nickname": price.nickname,
                        "unit_amount_decimal": price.unit_amount,
                        "recurring": recurring,
                        "metadata": {OUR_KEY: price.lookup_key},
                    },
                ),
                {"idempotency_key": key},
            )
        )
        return str(made.id)

    async def customers_since(self, since_s: int) -> dict[str, str]:
        pages = self._client.v1.customers.list_async({"created": {"gte": since_s}, "limit": PAGE})
        found = [shapes.customer(one) async for one in _every(pages)]
        return {key: stripe_id for key, stripe_id in reversed(found) if key}

    async def create_customer(self, customer_id: str, name: str, email: str, key: str) -> str:
        params: dict[str, Any] = {"name": name, "metadata": {OUR_KEY: customer_id}}
        if email:
            params["email"] = email
        made = await _asked(
            self._client.v1.customers.create_async(cast("Any", params), {"idempotency_key": key})
        )
        return str(made.id)

    async def subscriptions(self, stripe_customer: str) -> list[Subscription]:
        pages = self._client.v1.subscriptions.list_async(
            {"customer": stripe_customer, "status": "all", "limit": PAGE}
        )
        return [shapes.subscription(found) async for found in _every(pages)]

    async def subscription(self, subscription_id: str) -> Subscription:
        found = await _asked(self._client.v1.subscriptions.retrieve_async(subscription_id))
        return shapes.subscription(found.to_dict())

    async def create_subscription(self, new: NewSubscription, key: str) -> Subscription:
        about: dict[str, Any] = {}
        if new.backdate_s is not None:
            about = {"metadata": {FROM_KEY: str(new.backdate_s)}}
        if new.quantity is not None:
            about |= {"quantity": new.quantity}
        items = [{"price": price, **about} for price in new.prices]
        params: dict[str, Any] = {
            "customer": new.stripe_customer,
            "items": items,
            "billing_cycle_anchor": new.anchor_s,
            # Backdated usage is on the invoice of the period's end; a flexible subscription would
            # bill it at once, before the rest of it has come ("Create a backdated subscription").
            "billing_mode": {"type": "classic"},
            "collection_method": "send_invoice",
            "days_until_due": new.days_until_due,
            "metadata": {OUR_KEY: new.key},
        }
        if new.backdate_s is not None:
            params["backdate_start_date"] = new.backdate_s
        made = await _asked(
            self._client.v1.subscriptions.create_async(
                cast("Any", params), {"idempotency_key": key}
            )
        )
        return shapes.subscription(made.to_dict())

    async def add_item(self, subscription: str, price_id: str, key: str) -> SubscriptionItem:
        made = await _asked(
            self._client.v1.subscription_items.create_async(
                {"subscription": subscription, "price": price_id}, {"idempotency_key": key}
            )
        )
        return shapes.item(made.to_dict())

    async def cancel_subscription(self, subscription_id: str, key: str) -> None:
        await _asked(
            self._client.v1.subscriptions.cancel_async(
                subscription_id, {"prorate": True, "invoice_now": False}, {"idempotency_key": key}
            )
        )

    # --- invoices and credits

    async def invoice_items(self, stripe_customer: str, since_s: int) -> list[InvoiceItem]:
        pages = self._client.v1.invoice_items.list_async(
            {"customer": stripe_customer, "created": {"gte": since_s}, "limit": PAGE}
        )
        return [shapes.invoice_item(found) async for found in _every(pages)]

    async def create_invoice_item(self, item: NewInvoiceItem, key: str) -> InvoiceItem:
        made = await _asked(
            self._client.v1.invoice_items.create_async(
                cast(
                    "Any",  # the amount as digits, see the top of this module
                    {
                        "customer": item.stripe_customer,
                        "currency": item.currency,
                        "unit_amount_decimal": item.unit_amount,
                        "quantity": item.quantity,
                        "period": {"start": item.period_start_s, "end": item.period_end_s},
                        "description": item.description,
                        "metadata": {LATE_KEY: item.late_key},
                    },
                ),
                {"idempotency_key": key},
            )
        )
        return shapes.invoice_item(made.to_dict())

    async def invoices(self, stripe_customer: str, since_s: int) -> list[Invoice]:
        pages = self._client.v1.invoices.list_async(
            {"customer": stripe_customer, "created": {"gte": since_s}, "limit": PAGE}
        )
        return [shapes.invoice(found) async for found in _every(pages)]

    async def invoice(self, invoice_id: str) -> Invoice:
        found = await _asked(self._client.v1.invoices.retrieve_async(invoice_id))
        return shapes.invoice(found.to_dict())

    async def put_off_finalisation(self, invoice_id: str, until_s: int, key: str) -> Invoice:
        """ "Schedule invoice finalization": a draft's time may be set while it advances itself."""
        found = await _asked(
            self._client.v1.invoices.update_async(
                invoice_id,
                {"auto_advance": True, "automatically_finalizes_at": until_s},
                {"idempotency_key": key},
            )
        )
        return shapes.invoice(found.to_dict())

    async def grants(self, stripe_customer: str) -> list[Grant]:
        pages = self._client.v1.billing.credit_grants.list_async(
            {"customer": stripe_customer, "limit": PAGE}
        )
        return [shapes.grant(found) async for found in _every(pages)]

    async def create_grant(self, grant: NewGrant, key: str) -> Grant:
        params: dict[str, Any] = {
            "customer": grant.stripe_customer,
            "name": grant.name,
            "category": grant.category,
            "amount": {
                "type": "monetary",
                "monetary": {"currency": grant.currency, "value": grant.amount_minor},
            },
            "applicability_config": {"scope": {"price_type": "metered"}},
            "metadata": {OUR_KEY: grant.key},
        }
        if grant.effective_at_s is not None:
            params["effective_at"] = grant.effective_at_s
        if grant.expires_at_s is not None:
            params["expires_at"] = grant.expires_at_s
        made = await _asked(
            self._client.v1.billing.credit_grants.create_async(
                cast("Any", params), {"idempotency_key": key}
            )
        )
        return shapes.grant(made.to_dict())

    async def error_report(self, event_id: str) -> ErrorReport:
        """The full event: the notification that came by webhook is thin and names it alone."""
        found = await _asked(self._client.v2.core.events.retrieve_async(event_id))
        return shapes.error_report(found.to_dict())

    def open_webhook(self, raw: bytes, signature: str, secret: str, now_s: int) -> Notice:
        """What a webhook is about, once its signature over the raw body and its time hold."""
        try:
            stripe.WebhookSignature.verify_header(raw, signature, secret, tolerance=None)
            moments = [int(part[2:]) for part in signature.split(",") if part.startswith("t=")]
            if abs(moments[0] - now_s) > TOLERANCE_S:
                raise BadStripeEvent(
                    "The webhook was signed too long ago or in the future.",
                    next_step="Compare this host's clock with the true time.",
                )
            return shapes.notice(json.loads(raw))
        except stripe.SignatureVerificationError as error:
            raise BadStripeEvent(
                "The webhook's signature does not fit.",
                next_step="Compare [stripe] webhook_secret with the endpoint's secret in Stripe.",
            ) from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadStripeEvent("The webhook is not an event of Stripe.") from error


async def _asked(call: Awaitable[_T]) -> _T:
    """The answer, or our error: what went wrong says whether and how to ask again."""
    try:
        return await call
    except stripe.APIConnectionError as error:
        raise StripeUnavailable("Stripe cannot be reached.") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # The SDK reads the body outside of its own error handling.
        raise StripeUnavailable("Stripe's answer did not arrive whole.") from error
    except stripe.StripeError as error:
        raise _translated(error) from error


def _translated(error: stripe.StripeError) -> StripeError:
    """Per "Error handling"; 409 is an idempotency key whose first call is not over yet."""
    status = error.http_status or 0
    said = (error.user_message or "Stripe gave no reason.")[:500]
    if status in {401, 403}:
        return StripeDenied(
            "Stripe does not accept the key, or not for this.",
            next_step="Check [stripe] api_key and its permissions.",
        )
    if isinstance(error, stripe.RateLimitError) or status == 429:
        return StripeUnavailable("Stripe asks to slow down.", limited=True)
    if status == 409 or status < 400:
        return StripeUnavailable(f"Stripe is not ready for it: {said}")
    if status >= 500:
        return StripeUnavailable(f"Stripe failed with {status}: {said}", stored=True)
    if DUPLICATE in said.lower():
        return StripeDuplicate("Stripe has this meter event already.")
    return StripeRefused(f"Stripe refused: {said}", reason=error.code or "")


async def _every(first: Awaitable[Any]) -> AsyncIterator[Mapping[str, Any]]:
    """Each object of a list, over all its pages, as plain values."""
    page = await _asked(first)
    while not page.is_empty:
        for found in page.data:
            yield found.to_dict()
        if not page.has_more:
            return
        page = await _asked(page.next_page_async())
