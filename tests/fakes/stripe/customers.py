"""Customers. Source: "Customers" and "Search" of the API reference."""

import re
from typing import Any

from tests.fakes.stripe.account import Account, Object, merged_metadata, page, within
from tests.fakes.stripe.errors import malformed, missing

SEARCH_LAG_S = 60  # page "Search": usually within a minute; not for reading what was just written
_CLAUSE = re.compile(
    r"""\s*(?:(?P<field>[a-z_]+)(?:\[["'](?P<key>[^"']+)["']\])?)\s*(?P<op>[:~])\s*"""
    r"""(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)')\s*"""
)
_TEXTS = ("name", "email", "phone", "description")


def create(account: Account, params: Object) -> Object:
    test_clock = params.get("test_clock")
    if test_clock is not None:
        account.get("test_helpers.test_clock", test_clock, "test_clock", 400)
    made = account.add(
        "customer",
        {
            "address": params.get("address") or None,
            "balance": params.get("balance", 0),
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "discount": None,
            "invoice_prefix": f"D{account.sequence + 1:07d}",
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "metadata": merged_metadata({}, params.get("metadata")),
            "next_invoice_sequence": 1,
            "preferred_locales": [],
            "shipping": params.get("shipping") or None,
            "tax_exempt": params.get("tax_exempt") or "none",
            "test_clock": test_clock,
        }
        | {name: params.get(name) for name in _TEXTS},
    )
    account.emit("customer.created", made)
    return made


def retrieve(account: Account, params: Object, customer: str) -> Object:
    return account.get("customer", customer)


def update(account: Account, params: Object, customer: str) -> Object:
    found = _living(account, customer)
    for name in (*_TEXTS, "address", "balance"):
        if name in params:
            found[name] = params[name] or None
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    account.emit("customer.updated", found)
    return found


def delete(account: Account, params: Object, customer: str) -> Object:
    """What is left of a deleted customer says so; its subscriptions end at once."""
    found = _living(account, customer)
    for subscription in account.objects["subscription"].values():
        if subscription["customer"] == customer and subscription["status"] != "canceled":
            subscription |= {"status": "canceled", "ended_at": account.now(customer)}
    account.emit("customer.deleted", found)
    gone = {"id": customer, "object": "customer", "deleted": True}
    account.objects["customer"][customer] = gone
    return gone


def listed(account: Account, params: Object) -> Object:
    found = (
        one
        for one in account.newest_first("customer")
        if not one.get("deleted")
        and within(one["created"], params.get("created"))
        and params.get("email") in (None, one["email"])
        and params.get("test_clock") in (None, one["test_clock"])
    )
    return page(found, params, "/v1/customers")


def search(account: Account, params: Object) -> Object:
    """`metadata["tenant"]:"x" AND name~"y"`; sees only what is older than the lag."""
    clauses = [_clause(text) for text in re.split(r"\s+AND\s+", params["query"])]
    settled = account.clock.now_s() - SEARCH_LAG_S
    found = [
        one
        for one in account.newest_first("customer")
        if not one.get("deleted")
        and one["created"] <= settled
        and all(_matches(one, *clause) for clause in clauses)
    ]
    limit = params.get("limit", 10)
    return {
        "object": "search_result",
        "data": found[:limit],
        "has_more": len(found) > limit,
        "next_page": None,
        "url": "/v1/customers/search",
    }


def _clause(text: str) -> tuple[str, str | None, str, str]:
    match = _CLAUSE.fullmatch(text)
    if match is None or (match["field"] == "metadata") != (match["key"] is not None):
        raise malformed("We were unable to parse your search query", "query")
    value = match["double"] if match["double"] is not None else match["single"]
    return match["field"], match["key"], match["op"], value


def _matches(one: Object, field: str, key: str | None, op: str, value: str) -> bool:
    if field not in (*_TEXTS, "metadata"):
        raise malformed(f"Field `{field}` is an unsupported search field", "query")
    held: Any = one[field] if key is None else one["metadata"].get(key)
    if held is None:
        return False
    return value.lower() in held.lower() if op == "~" else bool(held.lower() == value.lower())


def _living(account: Account, customer: str) -> Object:
    found = account.get("customer", customer)
    if found.get("deleted"):
        raise missing("customer", customer)
    return found


def living_parameter(account: Account, customer: str | None) -> Object:
    """The customer that a parameter names; 400 when it is missing or deleted."""
    if customer is None:
        raise malformed("Missing required param: customer.", "customer", "parameter_missing")
    found = account.get("customer", customer, "customer", 400)
    if found.get("deleted"):
        raise missing("customer", customer, "customer", 400)
    return found
