"""How an invoice comes to be: drafted when a period ends, final an hour later, and then fixed.

Sources: pages "How invoices work", "Configure an invoice finalization grace period" (one hour
unless configured; usage reported for the period until then is on the invoice), "Record usage for
billing" (usage after that is not billed); `stripe/_invoice.py`, `stripe/_invoice_line_item.py`.
"""

from tests.fakes.stripe import billing_credits, catalog, meters, periods
from tests.fakes.stripe.account import Account, Object

FINAL_AFTER_S = 3_600
ITEMS_MAX = 250  # InvoiceItemCreateParams.invoice


def first(account: Account, subscription: Object) -> Object:
    """At its start a subscription bills in advance what is not metered; 0 when all is."""
    now = subscription["created"]
    invoice = drafted(account, subscription, "subscription_create", now, now, now)
    invoice["lines"]["data"] = advance_lines(account, subscription, invoice["id"])
    take_pending(account, invoice)
    finalize_now(account, invoice, now)
    return invoice


def cycle(account: Account, subscription: Object, moment: int) -> Object:
    """The draft at the end of a period; the subscription goes on to its next one."""
    items = subscription["items"]["data"]
    start, end = items[0]["current_period_start"], moment
    invoice = drafted(account, subscription, "subscription_cycle", start, end, moment)
    invoice["automatically_finalizes_at"] = moment + FINAL_AFTER_S
    metered = [dict(item) for item in items if "quantity" not in item]
    for item in items:
        recurring = item["price"]["recurring"]
        item["current_period_start"] = end
        item["current_period_end"] = periods.period_end(
            subscription["billing_cycle_anchor"],
            recurring["interval"],
            recurring["interval_count"],
            end,
        )
    lines = [usage_line(account, item, invoice) for item in metered]
    if subscription["cancel_at_period_end"]:
        subscription |= {"status": "canceled", "canceled_at": moment, "ended_at": moment}
        account.emit("customer.subscription.deleted", subscription)
    else:
        lines += advance_lines(account, subscription, invoice["id"])
    invoice["lines"]["data"] = lines
    take_pending(account, invoice)
    refresh(account, invoice)
    account.emit("invoice.created", invoice)
    return invoice


def last(account: Account, subscription: Object, moment: int) -> Object:
    """What was used until a cancellation, final at once."""
    items = subscription["items"]["data"]
    start = items[0]["current_period_start"]
    invoice = drafted(account, subscription, "subscription_cycle", start, moment, moment)
    invoice["lines"]["data"] = [
        usage_line(account, item | {"current_period_end": moment}, invoice)
        for item in items
        if "quantity" not in item
    ]
    take_pending(account, invoice)
    finalize_now(account, invoice, moment)
    return invoice


def drafted(
    account: Account,
    subscription: Object | None,
    reason: str,
    start: int,
    end: int,
    now: int,
    customer: str | None = None,
) -> Object:
    about = subscription or {}
    holder = account.get("customer", customer or about["customer"])
    invoice = account.add(
        "invoice",
        {
            "amount_due": 0,
            "amount_overpaid": 0,
            "amount_paid": 0,
            "amount_remaining": 0,
            "amount_shipping": 0,
            "attempt_count": 0,
            "attempted": False,
            "auto_advance": True,
            "automatically_finalizes_at": None,
            "billing_reason": reason,
            "collection_method": about.get("collection_method", "charge_automatically"),
            "created": now,
            "currency": about.get("currency", "usd"),
            "customer": holder["id"],
            "customer_email": holder["email"],
            "customer_name": holder["name"],
            "days_until_due": about.get("days_until_due"),
            "default_tax_rates": [],
            "description": None,
            "discounts": [],
            "due_date": None,
            "effective_at": None,
            "ending_balance": None,
            "lines": {"object": "list", "data": [], "has_more": False, "url": ""},
            "metadata": {},
            "number": None,
            "parent": None,
            "period_end": end,
            "period_start": start,
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "starting_balance": 0,
            "status": "draft",
            "status_transitions": {
                "finalized_at": None,
                "marked_uncollectible_at": None,
                "paid_at": None,
                "voided_at": None,
            },
            "subtotal": 0,
            "test_clock": holder["test_clock"],
            "total": 0,
            "total_discount_amounts": [],
            "total_pretax_credit_amounts": [],
            "total_taxes": [],
        },
    )
    invoice["lines"]["url"] = f"/v1/invoices/{invoice['id']}/lines"
    if subscription is not None:
        invoice["parent"] = {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        }
        subscription["latest_invoice"] = invoice["id"]
    return invoice


def _line(account: Account, invoice: str, currency: str, fields: Object) -> Object:
    return (
        {
            "id": account.new_id("il"),
            "object": "line_item",
            "currency": currency,
            "discount_amounts": [],
            "discountable": True,
            "discounts": [],
            "invoice": invoice,
            "livemode": False,
            "metadata": {},
            "pretax_credit_amounts": [],
            "taxes": [],
        }
        | fields
        | {"subtotal": fields["amount"], "quantity_decimal": str(fields["quantity"])}
    )


def _priced(price: Object) -> Object:
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def _from_item(item: Object) -> Object:
    return {
        "invoice_item_details": None,
        "subscription_item_details": {
            "invoice_item": None,
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": item["subscription"],
            "subscription_item": item["id"],
        },
        "type": "subscription_item_details",
    }


def usage_line(account: Account, item: Object, invoice: Object) -> Object:
    return _line(
        account,
        invoice["id"],
        item["price"]["currency"],
        {
            "amount": 0,
            "description": item["price"]["nickname"],
            "parent": _from_item(item),
            "period": {"start": item["current_period_start"], "end": item["current_period_end"]},
            "pricing": _priced(item["price"]),
            "quantity": 0,
        },
    )


def advance_lines(account: Account, subscription: Object, invoice: str) -> list[Object]:
    """What is not metered, for the period that begins; a short first one is billed in part."""
    lines = []
    for item in subscription["items"]["data"]:
        if "quantity" not in item:
            continue
        price, recurring = item["price"], item["price"]["recurring"]
        start, end = item["current_period_start"], item["current_period_end"]
        whole = end - periods.anchor_plus(end, recurring["interval"], -recurring["interval_count"])
        amount = catalog.cents(price["unit_amount_decimal"], item["quantity"])
        if end - start < whole:
            amount = round(amount * (end - start) / whole)
        lines.append(
            _line(
                account,
                invoice,
                price["currency"],
                {
                    "amount": amount,
                    "description": price["nickname"],
                    "parent": _from_item(item),
                    "period": {"start": start, "end": end},
                    "pricing": _priced(price),
                    "quantity": item["quantity"],
                },
            )
        )
    return lines


def take_pending(account: Account, invoice: Object) -> None:
    """Pending invoice items go onto the customer's next invoice."""
    subscription = ((invoice["parent"] or {}).get("subscription_details") or {}).get("subscription")
    for item in account.objects["invoiceitem"].values():
        wanted = ((item["parent"] or {}).get("subscription_details") or {}).get("subscription")
        if (
            item["customer"] == invoice["customer"]
            and item["invoice"] is None
            and item["currency"] == invoice["currency"]
            and wanted in (None, subscription)
            and len(invoice["lines"]["data"]) < ITEMS_MAX
        ):
            put_item(account, invoice, item)


def put_item(account: Account, invoice: Object, item: Object) -> None:
    item["invoice"] = invoice["id"]
    invoice["lines"]["data"].append(
        _line(
            account,
            invoice["id"],
            item["currency"],
            {
                "amount": item["amount"],
                "description": item["description"],
                "metadata": dict(item["metadata"]),
                "parent": {
                    "invoice_item_details": {
                        "invoice_item": item["id"],
                        "proration": False,
                        "proration_details": {"credited_items": None},
                        "subscription": None,
                    },
                    "subscription_item_details": None,
                    "type": "invoice_item_details",
                },
                "period": dict(item["period"]),
                "pricing": item["pricing"],
                "quantity": item["quantity"],
            },
        )
    )


def refresh(account: Account, invoice: Object) -> None:
    """A draft shows the usage of its period as it is known now."""
    for line in invoice["lines"]["data"]:
        price_id = ((line["pricing"] or {}).get("price_details") or {}).get("price")
        price = account.objects["price"].get(price_id or "")
        if line["parent"]["type"] != "subscription_item_details" or price is None:
            continue
        meter_id = price["recurring"]["meter"]
        if meter_id is None:
            continue
        quantity = meters.usage(
            account,
            account.get("billing.meter", meter_id),
            invoice["customer"],
            line["period"]["start"],
            line["period"]["end"],
        )
        billed = quantity
        if (transform := price["transform_quantity"]) is not None:
            whole, rest = divmod(quantity, transform["divide_by"])
            billed = whole + (1 if rest and transform["round"] == "up" else 0)
        amount = catalog.cents(price["unit_amount_decimal"], billed)
        line |= {"quantity": quantity, "quantity_decimal": str(quantity), "amount": amount}
        line["subtotal"] = amount
    _add_up(invoice)


def _add_up(invoice: Object) -> None:
    subtotal = sum(line["amount"] for line in invoice["lines"]["data"])
    given = sum(one["amount"] for one in invoice["total_pretax_credit_amounts"])
    total = subtotal - given
    invoice |= {"subtotal": subtotal, "subtotal_excluding_tax": subtotal}
    invoice |= {"total": total, "total_excluding_tax": total, "amount_due": max(0, total)}
    invoice["amount_remaining"] = invoice["amount_due"] - invoice["amount_paid"]


def finalize_now(account: Account, invoice: Object, moment: int) -> None:
    """Fix the lines, spend credits, number it; then it is paid or open."""
    refresh(account, invoice)
    invoice["total_pretax_credit_amounts"] = billing_credits.spend(account, invoice, moment)
    _add_up(invoice)
    holder = account.get("customer", invoice["customer"])
    if not holder.get("deleted"):
        number = holder["next_invoice_sequence"]
        invoice["number"] = f"{holder['invoice_prefix']}-{number:04d}"
        holder["next_invoice_sequence"] = number + 1
    invoice |= {"status": "open", "effective_at": moment, "automatically_finalizes_at": None}
    invoice["status_transitions"]["finalized_at"] = moment
    if invoice["collection_method"] == "send_invoice":
        invoice["due_date"] = moment + (invoice["days_until_due"] or 30) * 86_400
    account.emit("invoice.finalized", invoice)
    automatic = invoice["collection_method"] == "charge_automatically"
    if invoice["amount_due"] == 0 or (automatic and account.pays and invoice["auto_advance"]):
        settled(account, invoice, moment)
    elif automatic and invoice["auto_advance"]:
        invoice |= {"attempted": True, "attempt_count": 1}
        account.emit("invoice.payment_failed", invoice)


def settled(account: Account, invoice: Object, moment: int) -> None:
    due = invoice["amount_due"]
    invoice |= {"status": "paid", "amount_paid": due, "amount_remaining": 0, "attempted": due > 0}
    invoice["status_transitions"]["paid_at"] = moment
    account.emit("invoice.paid", invoice)
