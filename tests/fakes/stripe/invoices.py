"""Invoices, as they are asked for. Source: API reference, "Invoices"; `stripe/_invoice.py`."""

from collections.abc import Iterator

from tests.fakes.stripe import billing_credits, drafts
from tests.fakes.stripe.account import Account, Object, merged_metadata, page, within
from tests.fakes.stripe.customers import living_parameter
from tests.fakes.stripe.errors import invalid, missing, not_simulated


def _shown(account: Account, invoice: Object, lines_max: int = 10) -> Object:
    """Retrieved invoices hold their first ten lines; the rest is listed under their address."""
    if invoice["status"] == "draft":
        drafts.refresh(account, invoice)
    rows = invoice["lines"]["data"]
    shown = {key: value for key, value in invoice.items() if key != "days_until_due"}
    shown["lines"] = invoice["lines"] | {
        "data": rows[:lines_max],
        "has_more": len(rows) > lines_max,
    }
    return shown


def create(account: Account, params: Object) -> Object:
    """A one-off invoice; pending items only with `pending_invoice_items_behavior=include`."""
    for name in ("from_invoice", "shipping_cost", "automatic_tax", "discounts", "subscription"):
        if name in params:
            raise not_simulated(f"invoices with {name}")
    holder = living_parameter(account, params.get("customer"))
    now = account.now(holder["id"])
    invoice = drafts.drafted(account, None, "manual", now, now, now, holder["id"])
    invoice |= {
        "auto_advance": params.get("auto_advance", False),
        "collection_method": params.get("collection_method", "charge_automatically"),
        "currency": params.get("currency") or holder["currency"] or "usd",
        "days_until_due": params.get("days_until_due"),
        "description": params.get("description"),
        "metadata": merged_metadata({}, params.get("metadata")),
    }
    if invoice["auto_advance"]:
        invoice["automatically_finalizes_at"] = now + drafts.FINAL_AFTER_S
    if params.get("pending_invoice_items_behavior") == "include":
        drafts.take_pending(account, invoice)
    drafts.refresh(account, invoice)
    account.emit("invoice.created", invoice)
    return _shown(account, invoice)


def retrieve(account: Account, params: Object, invoice: str) -> Object:
    return _shown(account, account.get("invoice", invoice))


def lines(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    _shown(account, found)
    return page(iter(found["lines"]["data"]), params, f"/v1/invoices/{invoice}/lines")


def listed(account: Account, params: Object) -> Object:
    def rows() -> Iterator[Object]:
        for one in account.newest_first("invoice"):
            details = (one["parent"] or {}).get("subscription_details") or {}
            if (
                params.get("customer") in (None, one["customer"])
                and params.get("status") in (None, one["status"])
                and params.get("collection_method") in (None, one["collection_method"])
                and params.get("subscription") in (None, details.get("subscription"))
                and within(one["created"], params.get("created"))
            ):
                yield _shown(account, one)

    return page(rows(), params, "/v1/invoices")


def update(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    if "automatically_finalizes_at" in params and found["status"] != "draft":
        raise invalid(
            "Finalized invoices can't be updated in this way", "automatically_finalizes_at"
        )
    for name in ("auto_advance", "description", "days_until_due", "automatically_finalizes_at"):
        if name in params:
            found[name] = params[name]
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    return _shown(account, found)


def finalize(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    if found["status"] != "draft":
        raise invalid("This invoice is already finalized, you can't re-finalize it.")
    found["auto_advance"] = params.get("auto_advance", found["auto_advance"])
    drafts.finalize_now(account, found, account.now(found["customer"]))
    return _shown(account, found)


def pay(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    if found["status"] == "draft":
        drafts.finalize_now(account, found, account.now(found["customer"]))
    if found["status"] == "open":
        drafts.settled(account, found, account.now(found["customer"]))
    elif found["status"] != "paid":
        raise invalid("This invoice can no longer be paid.")
    return _shown(account, found)


def void(account: Account, params: Object, invoice: str) -> Object:
    """What was taken from credits is given back; source: page "Billing credits"."""
    found = account.get("invoice", invoice)
    if found["status"] != "open":
        raise invalid("You can only void open invoices.")
    now = account.now(found["customer"])
    found |= {"status": "void"}
    found["status_transitions"]["voided_at"] = now
    billing_credits.give_back(account, found, now)
    account.emit("invoice.voided", found)
    return _shown(account, found)


def delete(account: Account, params: Object, invoice: str) -> Object:
    found = account.get("invoice", invoice)
    if found["status"] != "draft" or found["parent"] is not None:
        raise invalid("You can only delete draft invoices that no subscription made.")
    for item in account.objects["invoiceitem"].values():
        if item["invoice"] == invoice:
            item["invoice"] = None
    del account.objects["invoice"][invoice]
    return {"id": invoice, "object": "invoice", "deleted": True}


def preview(account: Account, params: Object) -> Object:
    """The invoice as it would be now for the period under way; nothing is kept."""
    subscription_id = params.get("subscription")
    if subscription_id is None:
        living = [
            one["id"]
            for one in account.newest_first("subscription")
            if one["customer"] == params.get("customer") and one["status"] != "canceled"
        ]
        if not living:
            raise missing("upcoming invoice", str(params.get("customer")), "customer")
        subscription_id = living[0]
    subscription = account.get("subscription", subscription_id, "subscription", 400)
    items = subscription["items"]["data"]
    draft: Object = {
        "id": account.new_id("upcoming_in"),
        "customer": subscription["customer"],
        "amount_paid": 0,
        "total_pretax_credit_amounts": [],
    }
    rows = [drafts.usage_line(account, item, draft) for item in items if "quantity" not in item]
    rows += drafts.advance_lines(account, subscription, draft["id"])
    draft["lines"] = {"object": "list", "data": rows, "has_more": False, "url": ""}
    drafts.refresh(account, draft)
    return draft | {
        "object": "invoice",
        "billing_reason": "upcoming",
        "currency": subscription["currency"],
        "livemode": False,
        "period_start": items[0]["current_period_start"],
        "period_end": items[0]["current_period_end"],
        "status": "draft",
    }
