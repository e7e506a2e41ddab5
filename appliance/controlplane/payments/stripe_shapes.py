"""Stripe's JSON read into our values. Pure; what does not have the expected form is refused."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from appliance.controlplane.payments.stripe_errors import StripeUnavailable
from appliance.controlplane.payments.stripe_objects import (
    FROM_KEY,
    LATE_KEY,
    OUR_KEY,
    ErrorReport,
    Grant,
    Invoice,
    InvoiceItem,
    Meter,
    Notice,
    Subscription,
    SubscriptionItem,
)

Json = Mapping[str, Any]


def meter(found: Json) -> Meter:
    return Meter(
        meter_id=str(found["id"]),
        event_name=str(found["event_name"]),
        active=found.get("status") == "active",
    )


def summary(found: Json) -> tuple[int, int]:
    """Start of the hour and the sum of its events; sums come as JSON numbers, maybe `15.0`."""
    value = Decimal(str(found["aggregated_value"]))
    if value != value.to_integral_value():
        raise StripeUnavailable(f"Stripe gives a sum of {value} tokens, which is no whole number.")
    return int(found["start_time"]), int(value)


def customer(found: Json) -> tuple[str, str]:
    """Our key of it ("" for a stranger) and Stripe's."""
    return _ours(found, OUR_KEY), str(found["id"])


def subscription(found: Json) -> Subscription:
    return Subscription(
        subscription_id=str(found["id"]),
        status=str(found["status"]),
        start_s=int(found["start_date"]),
        key=_ours(found, OUR_KEY),
        items=tuple(item(one) for one in found["items"]["data"]),
    )


def item(found: Json) -> SubscriptionItem:
    return SubscriptionItem(
        item_id=str(found["id"]),
        price_id=_id(found["price"]),
        covered_from_s=int(_ours(found, FROM_KEY) or found["created"]),
    )


def invoice_item(found: Json) -> InvoiceItem:
    return InvoiceItem(
        item_id=str(found["id"]),
        late_key=_ours(found, LATE_KEY),
        invoice_id=None if found.get("invoice") is None else _id(found["invoice"]),
    )


def invoice(found: Json) -> Invoice:
    """An invoice of a subscription covers the period that it looks back on."""
    finalizes = found.get("automatically_finalizes_at")
    return Invoice(
        invoice_id=str(found["id"]),
        stripe_customer=_id(found["customer"]),
        subscription=_subscription_of(found),
        status=str(found["status"]),
        period_start_s=int(found["period_start"]),
        period_end_s=int(found["period_end"]),
        finalizes_at_s=None if finalizes is None else int(finalizes),
        currency=str(found["currency"]),
        total_minor=int(found["total"]),
        paid_minor=int(found.get("amount_paid") or 0),
    )


def grant(found: Json) -> Grant:
    return Grant(
        grant_id=str(found["id"]),
        key=_ours(found, OUR_KEY),
        voided=found.get("voided_at") is not None,
    )


def notice(found: Json) -> Notice:
    """Both forms of event: the snapshot (`event`) and the thin one (`v2.core.event`).

    Raises ValueError, LookupError, TypeError or AttributeError for anything else.
    """
    if found.get("object") == "v2.core.event":
        related = found.get("related_object") or {}
        about = str(related.get("id", ""))
    else:
        about = str(found["data"]["object"].get("id", ""))
    event_id, kind = found["id"], found["type"]
    if not isinstance(event_id, str) or not isinstance(kind, str) or not event_id or not kind:
        raise ValueError("an event has an id and a type")
    return Notice(event_id=event_id, type=kind, object_id=about)


def error_report(found: Json) -> ErrorReport:
    """Fields of "v1.billing.meter.error_report_triggered" and "…no_meter_found"."""
    data = found["data"]
    reason = data["reason"]
    related = found.get("related_object") or {}
    return ErrorReport(
        event_id=str(found["id"]),
        meter_id=str(related.get("id", "")),
        window_start_s=_moment_s(data["validation_start"]),
        window_end_s=_moment_s(data["validation_end"]),
        error_count=int(reason["error_count"]),
        samples=tuple(
            (str(kind["code"]), str(sample["request"]["identifier"]), str(sample["error_message"]))
            for kind in reason["error_types"]
            for sample in kind["sample_errors"]
        ),
    )


def _ours(found: Json, name: str) -> str:
    return str((found.get("metadata") or {}).get(name, ""))


def _id(reference: object) -> str:
    """A reference is an id, or the object itself where it was expanded."""
    return str(reference["id"]) if isinstance(reference, Mapping) else str(reference)


def _subscription_of(found: Json) -> str:
    details = (found.get("parent") or {}).get("subscription_details") or {}
    reference = details.get("subscription")
    return "" if reference is None else _id(reference)


def _moment_s(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())
