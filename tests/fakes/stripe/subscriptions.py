"""Subscriptions and their items.

Sources: "Subscriptions" and "Subscription items" of the API reference; `stripe/_subscription.py`;
page "Subscriptions with multiple products": at most 20 items; changelog 2025-03-31.basil: the
current period is on the item, usage records are gone.
"""

from tests.fakes.stripe import drafts, periods
from tests.fakes.stripe.account import Account, Object, merged_metadata, page, within
from tests.fakes.stripe.customers import living_parameter
from tests.fakes.stripe.errors import invalid, malformed, not_simulated

ITEMS_MAX = 20
_NOT_SIMULATED = (
    "trial_end",
    "trial_period_days",
    "cancel_at",
    "pause_collection",
    "discounts",
    "transfer_data",
    "application_fee_percent",
    "add_invoice_items",
    "billing_thresholds",
    "billing_schedules",
    "pending_invoice_item_interval",
    "on_behalf_of",
    "automatic_tax",
)


def create(account: Account, params: Object) -> Object:
    for name in _NOT_SIMULATED:
        if name in params:
            raise not_simulated(f"subscriptions with {name}")
    customer = living_parameter(account, params.get("customer"))
    now = account.now(customer["id"])
    if not params.get("items"):
        raise malformed("Missing required param: items.", "items", "parameter_missing")
    _due(params)
    prices = [_price(account, item, index) for index, item in enumerate(params["items"])]
    _together(prices)
    start = params.get("backdate_start_date", now)
    if start > now:
        raise invalid("backdate_start_date cannot be in the future.", "backdate_start_date")
    made = account.add(
        "subscription",
        {
            "application": None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
            "billing_cycle_anchor": _anchor(params, start),
            "billing_cycle_anchor_config": params.get("billing_cycle_anchor_config"),
            "billing_mode": params.get("billing_mode")
            or {"flexible": {"proration_discounts": "included"}, "type": "flexible"},
            "cancel_at": None,
            "cancel_at_period_end": params.get("cancel_at_period_end", False),
            "canceled_at": None,
            "cancellation_details": {"comment": None, "feedback": None, "reason": None},
            "collection_method": params.get("collection_method", "charge_automatically"),
            "created": now,
            "currency": prices[0]["currency"],
            "customer": customer["id"],
            "days_until_due": params.get("days_until_due"),
            "default_payment_method": None,
            "default_source": None,
            "on_behalf_of": None,
            "pending_setup_intent": None,
            "description": params.get("description"),
            "discounts": [],
            "ended_at": None,
            "items": {"object": "list", "data": [], "has_more": False, "url": ""},
            "latest_invoice": None,
            "metadata": merged_metadata({}, params.get("metadata")),
            "next_pending_invoice_item_invoice": None,
            "pause_collection": None,
            "schedule": None,
            "start_date": start,
            "status": "active",
            "test_clock": customer["test_clock"],
            "trial_end": None,
            "trial_start": None,
        },
    )
    made["items"]["url"] = f"/v1/subscription_items?subscription={made['id']}"
    for price, given in zip(prices, params["items"], strict=True):
        _add_item(account, made, price, given, start)
    customer["currency"] = made["currency"]
    drafts.first(account, made)
    account.emit("customer.subscription.created", made)
    return made


def _due(params: Object) -> None:
    sent = params.get("collection_method") == "send_invoice"
    if sent and "days_until_due" not in params:
        raise malformed(
            "When using `collection_method=send_invoice` you must pass `days_until_due`",
            "days_until_due",
            "parameter_missing",
        )
    if not sent and "days_until_due" in params:
        raise malformed("`days_until_due` needs `send_invoice`", "days_until_due")


def _anchor(params: Object, start: int) -> int:
    if "billing_cycle_anchor" in params and "billing_cycle_anchor_config" in params:
        raise malformed("Only one anchor can be given", "billing_cycle_anchor")
    if "billing_cycle_anchor_config" in params:
        return periods.configured_anchor(params["billing_cycle_anchor_config"], start)
    anchor: int = params.get("billing_cycle_anchor", start)
    if anchor < start:
        raise invalid("billing_cycle_anchor cannot be in the past.", "billing_cycle_anchor")
    return anchor


def _price(account: Account, item: Object, index: int) -> Object:
    where = f"items[{index}]"
    if "price_data" in item:
        raise not_simulated("inline prices of subscription items")
    if "price" not in item:
        raise malformed(f"Missing required param: {where}[price].", where, "parameter_missing")
    price = account.get("price", item["price"], f"{where}[price]", 400)
    if not price["active"]:
        raise invalid("The price specified is inactive.", f"{where}[price]")
    if price["recurring"] is None:
        raise invalid("The price specified is set to `type=one_time`.", f"{where}[price]")
    if price["recurring"]["usage_type"] == "metered" and "quantity" in item:
        raise invalid("You cannot set the quantity of a metered price.", f"{where}[quantity]")
    return price


def _together(prices: list[Object]) -> None:
    """All items of a subscription share their currency and interval, and no price comes twice."""
    if len(prices) > ITEMS_MAX:
        raise invalid(f"A subscription can have at most {ITEMS_MAX} items.", "items")
    if len({price["id"] for price in prices}) < len(prices):
        raise invalid("Cannot add multiple subscription items with the same price.", "items")
    if len({price["currency"] for price in prices}) > 1:
        raise invalid("All prices on a subscription must have the same currency.", "items")
    rhythms = {(one["recurring"]["interval"], one["recurring"]["interval_count"]) for one in prices}
    if len(rhythms) > 1:
        raise not_simulated("subscriptions whose items have different intervals")


def _add_item(
    account: Account, subscription: Object, price: Object, given: Object, start: int
) -> Object:
    recurring = price["recurring"]
    metered = recurring["usage_type"] == "metered"
    end = periods.period_end(
        subscription["billing_cycle_anchor"],
        recurring["interval"],
        recurring["interval_count"],
        start,
    )
    item = account.add(
        "subscription_item",
        {
            "billing_thresholds": None,
            "created": account.now(subscription["customer"]),
            "current_period_start": start,
            "current_period_end": end,
            "discounts": [],
            "metadata": merged_metadata({}, given.get("metadata")),
            "price": dict(price),
            "subscription": subscription["id"],
            "tax_rates": [],
        }
        | ({} if metered else {"quantity": given.get("quantity", 1)}),
    )
    del item["livemode"]  # an item has none of its own
    subscription["items"]["data"].append(item)
    return item


def retrieve(account: Account, params: Object, subscription: str) -> Object:
    return account.get("subscription", subscription)


def listed(account: Account, params: Object) -> Object:
    """Cancelled ones only when asked for: `status=canceled`, `ended` or `all`."""
    status = params.get("status")

    def wanted(one: Object) -> bool:
        ended: bool = one["status"] == "canceled"
        if status in ("canceled", "ended"):
            return ended
        if status == "all":
            return True
        return not ended if status is None else bool(one["status"] == status)

    prices = params.get("price")
    found = (
        one
        for one in account.newest_first("subscription")
        if wanted(one)
        and params.get("customer") in (None, one["customer"])
        and (prices is None or prices in [item["price"]["id"] for item in one["items"]["data"]])
        and within(one["created"], params.get("created"))
    )
    return page(found, params, "/v1/subscriptions")


def update(account: Account, params: Object, subscription: str) -> Object:
    for name in _NOT_SIMULATED:
        if name in params:
            raise not_simulated(f"changing {name} of a subscription")
    found = _living(account, subscription)
    for name in ("cancel_at_period_end", "collection_method", "days_until_due", "description"):
        if name in params:
            found[name] = params[name]
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    for index, given in enumerate(params.get("items", [])):
        if "id" in given:
            _change_item(account, found, given)
        else:
            _new_item(account, found, given, index)
    account.emit("customer.subscription.updated", found)
    return found


def _new_item(account: Account, subscription: Object, given: Object, index: int) -> Object:
    price = _price(account, given, index)
    held = subscription["items"]["data"]
    _together([*(item["price"] for item in held), price])
    return _add_item(account, subscription, price, given, account.now(subscription["customer"]))


def _change_item(account: Account, subscription: Object, given: Object) -> None:
    item = account.get("subscription_item", given["id"], "items", 400)
    if item["subscription"] != subscription["id"]:
        raise invalid("The item belongs to another subscription.", "items")
    if given.get("deleted"):
        _remove_item(account, subscription, item)
        return
    if "price" in given and given["price"] != item["price"]["id"]:
        raise not_simulated("the change of an item's price: delete it and add another")
    _set_item(item, given)


def _set_item(item: Object, given: Object) -> None:
    """A new quantity counts from the next period on: the double makes no prorations."""
    if "quantity" in given:
        if "quantity" not in item:
            raise invalid("You cannot set the quantity of a metered price.", "quantity")
        item["quantity"] = given["quantity"]
    if "metadata" in given:
        item["metadata"] = merged_metadata(item["metadata"], given["metadata"])


def _remove_item(account: Account, subscription: Object, item: Object) -> None:
    if len(subscription["items"]["data"]) == 1:
        raise invalid("A subscription must have at least one active item.", "items")
    subscription["items"]["data"] = [
        one for one in subscription["items"]["data"] if one["id"] != item["id"]
    ]
    account.objects["subscription_item"].pop(item["id"])


def cancel(account: Account, params: Object, subscription: str) -> Object:
    """At once; what was used is billed only with `invoice_now`."""
    found = _living(account, subscription)
    now = account.now(found["customer"])
    if params.get("invoice_now"):
        drafts.last(account, found, now)
    found |= {"status": "canceled", "canceled_at": now, "ended_at": now}
    account.emit("customer.subscription.deleted", found)
    return found


def _living(account: Account, subscription: str) -> Object:
    found = account.get("subscription", subscription)
    if found["status"] == "canceled":
        raise invalid("A canceled subscription can only update its metadata.")
    return found


def create_item(account: Account, params: Object) -> Object:
    subscription = account.get("subscription", params["subscription"], "subscription", 400)
    return _new_item(account, _living(account, subscription["id"]), params, 0)


def listed_items(account: Account, params: Object) -> Object:
    subscription = account.get("subscription", params["subscription"], "subscription", 400)
    return page(iter(subscription["items"]["data"]), params, "/v1/subscription_items")


def retrieve_item(account: Account, params: Object, item: str) -> Object:
    return account.get("subscription_item", item)


def update_item(account: Account, params: Object, item: str) -> Object:
    found = account.get("subscription_item", item)
    if "price" in params and params["price"] != found["price"]["id"]:
        raise not_simulated("the change of an item's price: delete it and add another")
    _set_item(found, params)
    return found


def delete_item(account: Account, params: Object, item: str) -> Object:
    found = account.get("subscription_item", item)
    _remove_item(account, account.get("subscription", found["subscription"]), found)
    return {"id": item, "object": "subscription_item", "deleted": True}
