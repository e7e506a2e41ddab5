"""Billing credits: grants, what was spent of them, and what is left.

Sources: page "Billing credits" of the documentation (spent when an invoice becomes final, on lines
of metered prices; order: priority, expiry, category, effective date, creation); `stripe/billing/
_credit_grant.py`, `_credit_balance_transaction.py`.
"""

from tests.fakes.stripe.account import Account, Object, merged_metadata, page
from tests.fakes.stripe.customers import living_parameter
from tests.fakes.stripe.errors import invalid, malformed

PRIORITY = 50


def create(account: Account, params: Object) -> Object:
    holder = living_parameter(account, params.get("customer"))
    now = account.now(holder["id"])
    money = params["amount"].get("monetary")
    if money is None or money["value"] <= 0:
        raise malformed("amount[monetary][value] must be positive", "amount[monetary][value]")
    priority = params.get("priority", PRIORITY)
    if not 0 <= priority <= 100:
        raise malformed("priority must be between 0 and 100", "priority")
    effective = params.get("effective_at", now)
    expires = params.get("expires_at")
    if expires is not None and expires <= max(now, effective):
        raise malformed("expires_at must be in the future", "expires_at")
    made = account.add(
        "billing.credit_grant",
        {
            "amount": params["amount"],
            "applicability_config": params["applicability_config"],
            "category": params.get("category", "paid"),
            "created": now,
            "customer": holder["id"],
            "effective_at": effective,
            "expires_at": expires,
            "metadata": merged_metadata({}, params.get("metadata")),
            "name": params.get("name"),
            "priority": priority,
            "test_clock": holder["test_clock"],
            "updated": now,
            "voided_at": None,
        },
    )
    _move(account, made, "credit", "credits_granted", money["value"], effective)
    account.emit("billing.credit_grant.created", made)
    return made


def _move(
    account: Account,
    grant: Object,
    kind: str,
    reason: str,
    value: int,
    moment: int,
    details: Object | None = None,
) -> Object:
    currency = grant["amount"]["monetary"]["currency"]
    money = {"monetary": {"currency": currency, "value": value}, "type": "monetary"}
    side: Object = {"amount": money, "type": reason}
    if details is not None:
        side[reason] = details
    return account.add(
        "billing.credit_balance_transaction",
        {
            "created": moment,
            "credit": side if kind == "credit" else None,
            "credit_grant": grant["id"],
            "debit": side if kind == "debit" else None,
            "effective_at": moment,
            "test_clock": grant["test_clock"],
            "type": kind,
        },
    )


def balance(account: Account, grant: str) -> int:
    """Cents that are left of a grant."""
    left = 0
    for moved in account.objects["billing.credit_balance_transaction"].values():
        if moved["credit_grant"] == grant:
            side = moved["credit"] or moved["debit"]
            value = side["amount"]["monetary"]["value"]
            left += value if moved["type"] == "credit" else -value
    return left


def _usable(account: Account, customer: str, moment: int) -> list[Object]:
    grants = [
        grant
        for grant in account.objects["billing.credit_grant"].values()
        if grant["customer"] == customer
        and grant["voided_at"] is None
        and grant["effective_at"] <= moment
        and (grant["expires_at"] is None or grant["expires_at"] > moment)
    ]
    return sorted(
        grants,
        key=lambda grant: (
            grant["priority"],
            grant["expires_at"] or 1 << 62,
            grant["category"] != "promotional",
            grant["effective_at"],
            grant["created"],
        ),
    )


def spend(account: Account, invoice: Object, moment: int) -> list[Object]:
    """Spend what there is on the metered lines; the amounts are on each line and in total."""
    totals = []
    for grant in _usable(account, invoice["customer"], moment):
        left = balance(account, grant["id"])
        for line in invoice["lines"]["data"]:
            open_amount = line["amount"] - sum(
                one["amount"] for one in line["pretax_credit_amounts"]
            )
            taken = min(left, open_amount)
            if taken <= 0 or not _applies(account, grant, line):
                continue
            left -= taken
            moved = _move(
                account,
                grant,
                "debit",
                "credits_applied",
                taken,
                moment,
                {"invoice": invoice["id"], "invoice_line_item": line["id"]},
            )
            amount = {
                "amount": taken,
                "credit_balance_transaction": moved["id"],
                "type": "credit_balance_transaction",
            }
            line["pretax_credit_amounts"].append(amount)
            totals.append(dict(amount))
    return totals


def _applies(account: Account, grant: Object, line: Object) -> bool:
    price_id = ((line["pricing"] or {}).get("price_details") or {}).get("price")
    price = account.objects["price"].get(price_id or "")
    if price is None or price["recurring"] is None or price["recurring"]["meter"] is None:
        return False
    if price["currency"] != grant["amount"]["monetary"]["currency"]:
        return False
    named = grant["applicability_config"]["scope"].get("prices")
    return named is None or price_id in [one["id"] for one in named]


def give_back(account: Account, invoice: Object, moment: int) -> None:
    """A voided invoice returns what it took."""
    for one in invoice["total_pretax_credit_amounts"]:
        taken = account.get("billing.credit_balance_transaction", one["credit_balance_transaction"])
        grant = account.get("billing.credit_grant", taken["credit_grant"])
        details = dict(taken["debit"]["credits_applied"])
        _move(
            account,
            grant,
            "credit",
            "credits_application_invoice_voided",
            one["amount"],
            moment,
            details,
        )


def retrieve(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    return account.get("billing.credit_grant", id)


def update(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    found = account.get("billing.credit_grant", id)
    if "metadata" in params:
        found["metadata"] = merged_metadata(found["metadata"], params["metadata"])
    if "expires_at" in params:
        found["expires_at"] = params["expires_at"] or None
    found["updated"] = account.now(found["customer"])
    return found


def expire(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    return _ended(account, id, "expires_at", "credits_expired")


def void(account: Account, params: Object, id: str) -> Object:  # noqa: A002 - the path's own name
    return _ended(account, id, "voided_at", "credits_voided")


def _ended(account: Account, grant: str, field: str, reason: str) -> Object:
    found = account.get("billing.credit_grant", grant)
    now = account.now(found["customer"])
    if found["voided_at"] is not None or (found["expires_at"] or now + 1) <= now:
        raise invalid("The credit grant has ended already.")
    if (
        reason == "credits_voided"
        and balance(account, grant) < (found["amount"]["monetary"]["value"])
    ):
        raise invalid("A credit grant that was used cannot be voided.")
    left = balance(account, grant)
    if left > 0:
        _move(account, found, "debit", reason, left, now)
    found |= {field: now, "updated": now}
    account.emit("billing.credit_grant.updated", found)
    return found


def listed(account: Account, params: Object) -> Object:
    found = (
        one
        for one in account.newest_first("billing.credit_grant")
        if params.get("customer") in (None, one["customer"])
    )
    return page(found, params, "/v1/billing/credit_grants")


def listed_transactions(account: Account, params: Object) -> Object:
    found = (
        one
        for one in account.newest_first("billing.credit_balance_transaction")
        if params.get("credit_grant") in (None, one["credit_grant"])
        and params.get("customer")
        in (None, account.get("billing.credit_grant", one["credit_grant"])["customer"])
    )
    return page(found, params, "/v1/billing/credit_balance_transactions")


def summary(account: Account, params: Object) -> Object:
    """What a customer has left, over all grants or those for metered prices."""
    holder = living_parameter(account, params.get("customer"))
    sums: dict[str, int] = {}
    for grant in _usable(account, holder["id"], account.now(holder["id"])):
        if (
            params["filter"]["type"] == "credit_grant"
            and params["filter"].get("credit_grant") != (grant["id"])
        ):
            continue
        currency = grant["amount"]["monetary"]["currency"]
        sums[currency] = sums.get(currency, 0) + balance(account, grant["id"])
    return {
        "object": "billing.credit_balance_summary",
        "balances": [
            {
                name: {"monetary": {"currency": currency, "value": value}, "type": "monetary"}
                for name in ("available_balance", "ledger_balance")
            }
            for currency, value in sums.items()
        ],
        "customer": holder["id"],
        "livemode": False,
    }
