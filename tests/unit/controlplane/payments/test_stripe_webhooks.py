"""What Stripe tells us is kept once, looked up, and acted on."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from appliance.controlplane.database import Database
from appliance.controlplane.payments import quarantine
from appliance.controlplane.payments.stripe_errors import BadStripeEvent
from appliance.controlplane.payments.stripe_names import month_of
from appliance.controlplane.payments.stripe_tables import LATE_ITEMS, STRIPE_EVENTS, STRIPE_INVOICES
from appliance.controlplane.payments.webhooks import Webhooks
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.entropy import SeededEntropy
from tests.fakes.stripe import subscriptions
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe.webhooks import signature
from tests.fakes.stripe_side import DAY_S, HOUR_S, StripeSide, outbox, put, sdk, states

NOW_S = START_NS // 1_000_000_000
MONTH_S, NEXT_MONTH_S = month_of(NOW_S)
SECRET = "whsec_test"


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


@pytest.fixture
def webhooks(side: StripeSide) -> Webhooks:
    return Webhooks(side.database, side.api, side.invoices, side.clock, SeededEntropy(7), SECRET)


async def told(webhooks: Webhooks, clock: ManualClock, event: dict[str, Any]) -> bool:
    raw = json.dumps(event).encode()
    moment_s = clock.wall_ns() // 1_000_000_000
    return await webhooks.receive(raw, signature(raw.decode(), SECRET, moment_s))


def event(kind: str, object_id: str, number: int = 1) -> dict[str, Any]:
    return {
        "id": f"evt_{number}",
        "object": "event",
        "type": kind,
        "data": {"object": {"id": object_id}},
    }


def notes(database: Database) -> dict[str, str]:
    return database.read(
        lambda c: dict(c.execute(select(STRIPE_EVENTS.c.event_id, STRIPE_EVENTS.c.note)).all())  # type: ignore[arg-type]  # rows are pairs
    )


async def test_an_event_is_kept_before_it_is_answered_and_once(
    webhooks: Webhooks, database: Database, clock: ManualClock
) -> None:
    assert await told(webhooks, clock, event("ping", "x"))
    assert not await told(webhooks, clock, event("ping", "x"))
    assert await webhooks.round() == 1
    assert await webhooks.round() == 0
    assert notes(database) == {"evt_1": "nothing to do"}
    with pytest.raises(BadStripeEvent):
        await webhooks.receive(b"{}", "t=1,v1=00")


async def test_an_events_payload_is_not_believed(
    side: StripeSide,
    webhooks: Webhooks,
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
) -> None:
    put(database, "a", NOW_S, 10_000_000)
    await side.round()
    clock.turn(NEXT_MONTH_S + 60 - NOW_S)
    await double.settle()
    [draft] = [one for one in double.account.objects["invoice"].values() if one["total"]]
    told_of = event("invoice.paid", draft["id"])
    told_of["data"]["object"] |= {"status": "paid", "amount_paid": 10**9}
    await told(webhooks, clock, told_of)
    await webhooks.round()
    [row] = database.read(
        lambda c: (
            c.execute(select(STRIPE_INVOICES).where(STRIPE_INVOICES.c.invoice_id == draft["id"]))
            .mappings()
            .all()
        )
    )
    assert (row["status"], row["total_minor"], row["paid_minor"]) == ("draft", 150, 0)


async def test_a_final_invoice_shows_which_late_items_it_took(
    side: StripeSide,
    webhooks: Webhooks,
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
) -> None:
    put(database, "a", NOW_S, 1)
    put(database, "b", NOW_S - 400 * DAY_S, 10_000_000)
    await side.round()
    clock.turn(NEXT_MONTH_S + 2 * HOUR_S - NOW_S)
    await double.settle()
    [invoice] = [one for one in double.account.objects["invoice"].values() if one["total"]]
    await told(webhooks, clock, event("invoice.finalized", invoice["id"]))
    await webhooks.round()
    [item] = database.read(lambda c: c.execute(select(LATE_ITEMS)).mappings().all())
    assert item["invoice_id"] == invoice["id"]


async def test_what_is_gone_at_stripe_is_done_with(
    webhooks: Webhooks, database: Database, clock: ManualClock
) -> None:
    await told(webhooks, clock, event("invoice.paid", "in_gone"))
    assert await webhooks.round() == 1
    assert "No such" in notes(database)["evt_1"]


async def test_an_event_that_cannot_be_looked_up_now_is_tried_again(
    webhooks: Webhooks, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    await told(webhooks, clock, event("invoice.paid", "in_gone"))
    double.faults.plan("unavailable", method="GET")
    assert await webhooks.round() == 0
    assert await webhooks.round() == 0  # it waits
    clock.turn(10)
    assert await webhooks.round() == 1


async def dropped(
    side: StripeSide,
    webhooks: Webhooks,
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
    count: int,
) -> None:
    """Stripe takes events and drops them afterwards, for their customer is gone; it reports so."""
    put(database, "kept", NOW_S, 100_000)
    await side.round()
    [customer] = double.account.objects["customer"].values()
    gone = {"id": customer["id"], "object": "customer", "deleted": True}
    double.account.objects["customer"][customer["id"]] = gone
    for number in range(count):
        put(database, f"lost-{number:02}", NOW_S, 1 << number)
    await side.round()
    assert set(states(database).values()) == {"accepted"}
    double.account.objects["customer"][customer["id"]] = customer
    for kept in double.account.meter_events:
        kept["customer"] = customer["id"]
    clock.turn(120)
    await double.settle()
    [report] = double.account.objects["v2.core.event"].values()
    thin = {key: value for key, value in report.items() if key != "data"}
    await told(webhooks, clock, thin)
    assert await webhooks.round() == 1


@pytest.mark.parametrize("count", [3, 11])
async def test_rows_of_an_error_report_go_to_a_person_if_stripe_does_not_count_them(
    side: StripeSide,
    webhooks: Webhooks,
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
    count: int,
) -> None:
    """Up to ten are named; of more, the whole window is under suspicion, and the sum acquits."""
    await dropped(side, webhooks, database, double, clock, count)
    assert states(database)["lost-00"] == "sending"
    clock.turn(2 * HOUR_S)
    for _ in range(3):
        await side.round()
        clock.turn(660)
    found = states(database)
    assert found.pop("kept") == "accepted"
    assert set(found.values()) == {"quarantined"}
    assert sum(double.usage().values()) == 100_000

    held = database.read(quarantine.held)
    assert len(held) == count
    assert all(len(row.keys) == 1 and row.keys[0].startswith("cl-") for row in held)
    ids = [row.row_id for row in held]
    database.transact(lambda c: quarantine.send(c, ids, "test"))
    await side.round()
    assert set(states(database).values()) == {"accepted"}
    assert sum(double.usage().values()) == 100_000 + (1 << count) - 1
    assert {row["identifier"] for row in outbox(database)} >= {"evt_kept", "evt_lost-00~1"}


async def test_an_ended_subscription_is_followed_by_one_that_does_not_reach_back(
    side: StripeSide,
    webhooks: Webhooks,
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
) -> None:
    put(database, "a", NOW_S, 10_000_000)
    await side.round()
    [subscription] = double.account.objects["subscription"].values()
    clock.turn(DAY_S)
    subscriptions.cancel(double.account, {"invoice_now": True}, subscription["id"])
    await told(webhooks, clock, event("customer.subscription.deleted", subscription["id"]))
    await webhooks.round()
    clock.turn(90 * 60)
    now_s = clock.wall_ns() // 1_000_000_000
    put(database, "b", now_s // HOUR_S * HOUR_S, 20_000_000)
    put(database, "c", now_s // HOUR_S * HOUR_S - HOUR_S, 40_000_000)
    await side.round()
    assert states(database) == {"a": "accepted", "b": "accepted", "c": "late"}
    clock.turn(40 * DAY_S)
    await double.settle()
    total = sum(one["total"] for one in double.account.objects["invoice"].values())
    assert total == 150 + 300 + 600


async def test_a_person_decides_once(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    put(database, "a", NOW_S, 1)
    await side.round()
    [meter] = double.account.objects["billing.meter"].values()
    meter["status"] = "inactive"
    for row in "bcd":
        put(database, row, NOW_S, 2)
    await side.round()
    now_ns = clock.wall_ns()
    database.transact(lambda c: quarantine.accept(c, ["b"], "test", now_ns))
    database.transact(lambda c: quarantine.cancel(c, ["c"], "test", now_ns))
    with pytest.raises(quarantine.NotPossible):
        database.transact(lambda c: quarantine.cancel(c, ["d", "c"], "test", now_ns))
    with pytest.raises(quarantine.NotPossible):
        database.transact(lambda c: quarantine.send(c, ["unknown"], "test"))
    assert states(database)["d"] == "quarantined"
    meter["status"] = "active"
    database.transact(lambda c: quarantine.send(c, ["d"], "test"))
    await side.round()
    assert states(database) == {
        "a": "accepted",
        "b": "accepted",
        "c": "cancelled",
        "d": "accepted",
    }
    assert outbox(database)[3]["identifier"] == "evt_d"  # it never was there: the same one
