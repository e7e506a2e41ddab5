"""Test clocks: customers whose time is moved by hand, in Stripe's own test mode as well.

Source: page "Test clocks" of the documentation; `stripe/test_helpers/_test_clock.py`. Here an
advance is complete with its answer; Stripe takes a while and says `advancing` meanwhile.
"""

from tests.fakes.stripe.account import Account, Object
from tests.fakes.stripe.errors import invalid

KEPT_S = 30 * 86_400


def create(account: Account, params: Object) -> Object:
    return account.add(
        "test_helpers.test_clock",
        {
            "deletes_after": account.clock.now_s() + KEPT_S,
            "frozen_time": params["frozen_time"],
            "name": params.get("name"),
            "status": "ready",
            "status_details": {},
        },
    )


def advance(account: Account, params: Object, test_clock: str) -> Object:
    found = account.get("test_helpers.test_clock", test_clock)
    if params["frozen_time"] <= found["frozen_time"]:
        raise invalid("A test clock can only be moved forward.", "frozen_time")
    found["frozen_time"] = params["frozen_time"]
    return found


def retrieve(account: Account, params: Object, test_clock: str) -> Object:
    return account.get("test_helpers.test_clock", test_clock)


def delete(account: Account, params: Object, test_clock: str) -> Object:
    """Its customers go with it."""
    account.get("test_helpers.test_clock", test_clock)
    for customer in list(account.objects["customer"].values()):
        if customer.get("test_clock") == test_clock:
            for subscription in account.objects["subscription"].values():
                if subscription["customer"] == customer["id"]:
                    subscription["status"] = "canceled"
            gone = {"id": customer["id"], "object": "customer", "deleted": True}
            account.objects["customer"][customer["id"]] = gone
    del account.objects["test_helpers.test_clock"][test_clock]
    return {"id": test_clock, "object": "test_helpers.test_clock", "deleted": True}
