"""Invoice items. Source: "Invoice items" of the API reference; `stripe/_invoice_item.py`."""

from tests.fakes.stripe import catalog, drafts
from tests.fakes.stripe.account import Account, Object, merged_metadata, page, within
from tests.fakes.stripe.customers import living_parameter
from tests.fakes.stripe.errors import invalid, malformed, not_simulated


def create(account: Account, params: Object) -> Object:
    """An amount, or a price times a quantity; pending until an invoice takes it."""
    for name in ("discounts", "price_data", "tax_rates", "quantity_decimal"):
        if name in params:
            raise not_simulated(f"invoice items with {name}")
    holder = living_parameter(account, params.get("customer"))
    now = account.now(holder["id"])
    amount, quantity, pricing, currency = _amount(account, params)
    span = params.get("period", {"start": now, "end": now})
    if span["end"] < span["start"]:
        raise malformed("period[end] must not be before period[start]", "period[end]")
    invoice = None
    if "invoice" in params:
        invoice = account.get("invoice", params["invoice"], "invoice", 400)
        if invoice["status"] != "draft":
            raise invalid("The invoice is no longer a draft.", "invoice")
        if len(invoice["lines"]["data"]) >= drafts.ITEMS_MAX:
            raise invalid("An invoice can have at most 250 items.", "invoice")
    parent = None
    if "subscription" in params:
        account.get("subscription", params["subscription"], "subscription", 400)
        parent = {
            "subscription_details": {"subscription": params["subscription"]},
            "type": "subscription_details",
        }
    made = account.add(
        "invoiceitem",
        {
            "amount": amount,
            "currency": currency,
            "customer": holder["id"],
            "date": now,
            "description": params.get("description"),
            "discountable": params.get("discountable", amount >= 0),
            "discounts": [],
            "invoice": None,
            "metadata": merged_metadata({}, params.get("metadata")),
            "net_amount": amount,
            "parent": parent,
            "period": span,
            "pricing": pricing,
            "proration": False,
            "quantity": quantity,
            "quantity_decimal": str(quantity),
            "tax_rates": [],
            "test_clock": holder["test_clock"],
        },
    )
    del made["created"]
    if invoice is not None:
        drafts.put_item(account, invoice, made)
        drafts.refresh(account, invoice)
    account.emit("invoiceitem.created", made)
    return made


def _amount(account: Account, params: Object) -> tuple[int, int, Object, str]:
    ways = [name for name in ("amount", "unit_amount_decimal", "pricing") if name in params]
    if len(ways) != 1:
        raise malformed(
            "One of `amount`, `unit_amount_decimal` and `pricing` is needed",
            "amount",
            "parameters_exclusive" if ways else "parameter_missing",
        )
    quantity = params.get("quantity", 1)
    if quantity < 0:
        raise malformed("quantity must not be negative", "quantity")
    if ways == ["pricing"]:
        price = account.get("price", params["pricing"]["price"], "pricing[price]", 400)
        unit, currency = price["unit_amount_decimal"], price["currency"]
        details = {"price": price["id"], "product": price["product"]}
        pricing = {"price_details": details, "type": "price_details", "unit_amount_decimal": unit}
        return catalog.cents(unit, quantity), quantity, pricing, currency
    if "currency" not in params:
        raise malformed("Missing required param: currency.", "currency", "parameter_missing")
    if ways == ["amount"]:
        if "quantity" in params:
            raise malformed("`quantity` cannot be combined with `amount`", "quantity")
        unit = str(params["amount"])
    else:
        _, unit = catalog.amounts({"unit_amount_decimal": params["unit_amount_decimal"]})
    pricing = {"price_details": None, "type": "price_details", "unit_amount_decimal": unit}
    return catalog.cents(unit, quantity), quantity, pricing, params["currency"]


def retrieve(account: Account, params: Object, invoiceitem: str) -> Object:
    return account.get("invoiceitem", invoiceitem)


def update(account: Account, params: Object, invoiceitem: str) -> Object:
    found = account.get("invoiceitem", invoiceitem)
    if set(params) - {"metadata", "description", "expand"}:
        raise not_simulated("changing the amount of an invoice item")
    found["description"] = params.get("description", found["description"])
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    return found


def delete(account: Account, params: Object, invoiceitem: str) -> Object:
    """Only while no finalized invoice has it."""
    found = account.get("invoiceitem", invoiceitem)
    if found["invoice"] is not None:
        invoice = account.get("invoice", found["invoice"])
        if invoice["status"] != "draft":
            raise invalid("The invoice item is on an invoice that is final.")
        invoice["lines"]["data"] = [
            line
            for line in invoice["lines"]["data"]
            if (line["parent"]["invoice_item_details"] or {}).get("invoice_item") != invoiceitem
        ]
        drafts.refresh(account, invoice)
    del account.objects["invoiceitem"][invoiceitem]
    return {"id": invoiceitem, "object": "invoiceitem", "deleted": True}


def listed(account: Account, params: Object) -> Object:
    found = (
        one
        for one in account.newest_first("invoiceitem")
        if params.get("customer") in (None, one["customer"])
        and params.get("invoice") in (None, one["invoice"])
        and ("pending" not in params or params["pending"] is (one["invoice"] is None))
        and within(one["date"], params.get("created"))
    )
    return page(found, params, "/v1/invoiceitems")
