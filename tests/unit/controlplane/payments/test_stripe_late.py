"""Usage that no meter event can bill: on an invoice item of its own period, once."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from appliance.controlplane.database import Database
from appliance.controlplane.payments.stripe_names import month_of
from appliance.controlplane.payments.stripe_tables import LATE_ITEMS
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe_side import DAY_S, HOUR_S, StripeSide, outbox, put, sdk, states

NOW_S = START_NS // 1_000_000_000  # 2027-01-15T08:00:00Z
MONTH_S, NEXT_MONTH_S = month_of(NOW_S)
ITEMS = "/v1/invoiceitems"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def double(clock: ManualClock) -> AsyncIterator[StripeDouble]:
    async with StripeDouble(clock) as running:
        running.latency_s = 0.0
        yield running


@pytest.fixture
async def side(
    database: Database, double: StripeDouble, clock: ManualClock
) -> AsyncIterator[StripeSide]:
    api = sdk(double.base_url)
    yield StripeSide(database, api, clock)
    await api.close()


def items(double: StripeDouble) -> list[dict[str, Any]]:
    return list(double.account.objects["invoiceitem"].values())


def billed(double: StripeDouble) -> int:
    """Tokens that the double bills, by meters and by items."""
    return sum(double.usage().values()) + sum(item["quantity"] for item in items(double))


async def subscribed_long_ago(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock, days: int
) -> None:
    """A customer whose subscription has billed for so many days."""
    put(database, "0", NOW_S, 1)
    await side.round()
    clock.turn(days * DAY_S)
    await double.settle()


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        (9 * DAY_S, "accepted"),
        (34 * DAY_S + 23 * HOUR_S, "late"),
        (35 * DAY_S, "late"),
        (36 * DAY_S, "late"),
        (400 * DAY_S, "late"),
    ],
)
async def test_usage_of_any_age_is_billed_for_its_own_hour(
    side: StripeSide,
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
    age_s: int,
    state: str,
) -> None:
    await subscribed_long_ago(side, database, double, clock, 420)
    hour_s = (clock.wall_ns() // 1_000_000_000 - age_s) // HOUR_S * HOUR_S
    put(database, "a", hour_s, 2_000_000)
    await side.round()
    assert states(database)["a"] == state
    assert billed(double) == 2_000_001
    if state == "late":
        [item] = items(double)
        assert item["period"] == {"start": hour_s, "end": hour_s + HOUR_S - 1}
        assert item["amount"] == 30  # cents: two million tokens at 0.15 of a unit per million


async def test_usage_of_a_final_month_comes_late_at_the_price_of_its_time(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    await subscribed_long_ago(side, database, double, clock, 20)  # into February
    in_january_s = NEXT_MONTH_S - 5 * HOUR_S
    put(database, "a", in_january_s, 1_000_000, micros=200_000, multiplier_bp=7_000)
    put(database, "b", in_january_s + HOUR_S, 3_000_000, micros=200_000, multiplier_bp=7_000)
    put(database, "c", in_january_s, 1_000_000)
    put(database, "d", NEXT_MONTH_S, 10)
    await side.round()
    assert states(database) | {"0": ""} == {
        "0": "",
        "a": "late",
        "b": "late",
        "c": "late",
        "d": "accepted",
    }
    assert sorted((item["quantity"], item["amount"]) for item in items(double)) == [
        (1_000_000, 15),
        (4_000_000, 56),
    ]
    assert len({row["late_key"] for row in outbox(database)}) == 3  # two items, and none


async def test_a_draft_still_takes_usage_of_its_month(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    await subscribed_long_ago(side, database, double, clock, 16)
    clock.turn(NEXT_MONTH_S + 600 - clock.wall_ns() // 1_000_000_000)
    await double.settle()
    put(database, "a", NEXT_MONTH_S - HOUR_S, 1_000_000)
    await side.round()
    assert states(database)["a"] == "accepted"
    clock.turn(DAY_S)
    await double.settle()
    [invoice] = [one for one in double.account.objects["invoice"].values() if one["amount_due"] > 0]
    assert (invoice["status"], invoice["amount_due"]) == ("open", 15)


async def test_a_draft_is_kept_open_while_usage_cannot_be_sent(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    """Stripe's meters fail for the whole hour of the draft; the invoice waits for the usage."""
    await subscribed_long_ago(side, database, double, clock, 16)
    clock.turn(NEXT_MONTH_S + 60 - clock.wall_ns() // 1_000_000_000)
    await double.settle()
    put(database, "a", NEXT_MONTH_S - HOUR_S, 1_000_000)
    double.faults.plan("unavailable", "/v1/billing/meter_events", count=10_000)
    for _ in range(12):
        await side.round()
        clock.turn(10 * 60)
        await double.settle()
    double.faults.clear()
    await side.round()
    assert states(database)["a"] == "accepted"
    clock.turn(DAY_S)
    await double.settle()
    due = [one["amount_due"] for one in double.account.objects["invoice"].values()]
    assert sorted(due)[-1] == 15


async def test_a_month_without_an_invoice_yet_is_waited_for(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    await subscribed_long_ago(side, database, double, clock, 16)
    clock.turn(NEXT_MONTH_S + 1 - clock.wall_ns() // 1_000_000_000)
    double.account.objects["invoice"].clear()
    put(database, "a", NEXT_MONTH_S - HOUR_S, 1)
    found = double.account.objects["subscription"]
    kept = dict(found)
    found.clear()  # the double drafts nothing without it
    await side.round()
    assert states(database)["a"] == "pending"
    found.update(kept)
    await double.settle()
    clock.turn(61)
    await side.round()
    assert states(database)["a"] == "accepted"


async def test_usage_before_the_subscription_is_billed_late(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    """A new customer brings usage of last month and of this one: a subscription begins with it."""
    put(database, "a", MONTH_S - HOUR_S, 1_000_000)
    put(database, "b", MONTH_S, 2_000_000)
    await side.round()
    assert states(database) == {"a": "late", "b": "accepted"}
    [invoice_item] = items(double)
    assert invoice_item["quantity"] == 1_000_000
    clock.turn(30 * DAY_S)
    await double.settle()
    total = sum(one["total"] for one in double.account.objects["invoice"].values())
    assert total == 15 + 30


async def test_a_meter_that_is_added_later_bills_from_then_on(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    """Within the hour of its addition the event is dated after it, never into another hour."""
    await subscribed_long_ago(side, database, double, clock, 0)
    clock.turn(90 * 60)
    now_s = clock.wall_ns() // 1_000_000_000
    hour_s = now_s // HOUR_S * HOUR_S
    put(database, "a", hour_s - HOUR_S, 1_000_000, meter="output/llama/eu/serverless")
    put(database, "b", hour_s, 2_000_000, meter="output/llama/eu/serverless")
    await side.round()
    assert states(database) | {"0": ""} == {"0": "", "a": "late", "b": "accepted"}
    assert double.account.meter_events[-1]["timestamp"] == now_s
    clock.turn(40 * DAY_S)
    await double.settle()
    total = sum(one["total"] for one in double.account.objects["invoice"].values())
    assert total == 15 + 30


@pytest.mark.parametrize(
    "fault", ["answer_lost", "reset_before", "reset_after", "truncated", "stored_500"]
)
async def test_an_item_is_made_once_whatever_the_network_does(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock, fault: str
) -> None:
    put(database, "a", NOW_S - 400 * DAY_S, 1_000_000)
    double.faults.plan(fault, ITEMS)
    await side.round()
    assert states(database) == {"a": "pending"}  # and bound to an item
    clock.turn(10)
    await side.late.round()
    assert states(database) == {"a": "late"}
    assert len(items(double)) == 1


async def test_an_item_whose_failure_stripe_stored_is_looked_for_and_made_with_another_key(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    put(database, "a", NOW_S - 400 * DAY_S, 1_000_000)
    double.faults.plan("stored_500_after", ITEMS)  # it was made, and answered with 500
    await side.round()
    clock.turn(10)
    await side.late.round()
    assert states(database) == {"a": "late"}
    assert len(items(double)) == 1


async def test_a_month_that_is_still_coming_in_becomes_one_item(
    database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    api = sdk(double.base_url)
    side = StripeSide(database, api, clock, late_quiet_s=120)
    start_s = month_of(NOW_S - 300 * DAY_S)[0]
    for day in range(20):
        put(database, f"{day:02}", start_s + day * DAY_S, 100, created_at_ns=clock.wall_ns())
        await side.round()
        clock.turn(61)
    assert set(states(database).values()) == {"pending"}
    clock.turn(120)
    await side.round()
    assert set(states(database).values()) == {"late"}
    [item] = items(double)
    assert item["quantity"] == 2_000
    assert item["period"] == {"start": start_s, "end": start_s + 19 * DAY_S + HOUR_S - 1}
    await api.close()


async def test_four_hundred_days_become_an_item_a_month(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    for day in range(400, 0, -1):
        put(database, f"{day:03}", (NOW_S - day * DAY_S) // HOUR_S * HOUR_S, 1_000)
    await side.round()
    await side.round()
    assert billed(double) == 400_000
    assert len(items(double)) == 13  # December 2025 to December 2026
    assert set(states(database).values()) == {"late", "accepted"}


async def test_a_refused_item_is_for_a_person(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", NOW_S - 400 * DAY_S, 1_000_000, multiplier_bp=10_001, micros=7)
    await side.round()
    assert states(database) == {"a": "pending"}  # no price can be made of it, so no way either
    put(database, "b", NOW_S, 1, customer_id="globex")
    await side.round()
    [customer] = double.account.objects["customer"].values()
    put(database, "c", NOW_S - 400 * DAY_S, 1_000_000, customer_id="globex")
    await side.deliverer.round()
    double.account.objects["customer"][customer["id"]] = {
        "id": customer["id"],
        "object": "customer",
        "deleted": True,
    }
    await side.late.round()
    assert states(database)["c"] == "quarantined"
    [item] = database.read(lambda c: c.execute(select(LATE_ITEMS)).mappings().all())
    assert item["refused"] == outbox(database)[2]["note"] != ""


async def test_what_may_have_arrived_is_looked_up_before_it_is_billed_late(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    """Sent in the last hour of a month, unanswered; the invoice is final before we look again."""
    clock.turn(NEXT_MONTH_S - 600 - NOW_S)
    for row, fault in (("a", "answer_lost"), ("b", "reset_before")):
        put(database, row, NEXT_MONTH_S - HOUR_S, 5 if row == "a" else 7, customer_id=row)
        double.faults.plan(fault, "/v1/billing/meter_events")
        await side.round()
    assert set(states(database).values()) == {"sending"}
    clock.turn(4 * DAY_S)
    await double.settle()
    for _ in range(3):
        await side.round()
        clock.turn(660)
    assert states(database) == {"a": "accepted", "b": "late"}
    assert billed(double) == 12
