"""The outbox reaches Stripe: each row once, whatever happens on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select, update

from appliance.controlplane.database import Database
from appliance.controlplane.payments.lanes import Lane, lease, wake
from appliance.controlplane.payments.stripe_objects import MeterEvent
from appliance.controlplane.payments.stripe_tables import (
    STRIPE_ATTEMPTS,
    STRIPE_LANES,
    STRIPE_READINGS,
)
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe_side import DAY_S, HOUR_S, StripeSide, outbox, put, sdk, states

NOW_S = START_NS // 1_000_000_000
THIS_HOUR_S = NOW_S // HOUR_S * HOUR_S
AN_HOUR_AGO_S = THIS_HOUR_S - HOUR_S
EVENTS = "/v1/billing/meter_events"


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


def keys(database: Database, row_id: str) -> list[str]:
    """The idempotency keys a row was sent with."""
    return database.read(
        lambda connection: list(
            connection.execute(
                select(STRIPE_ATTEMPTS.c.idempotency_key)
                .where(STRIPE_ATTEMPTS.c.row_id == row_id)
                .order_by(STRIPE_ATTEMPTS.c.sent_at_ns)
            ).scalars()
        )
    )


def counted(double: StripeDouble) -> int:
    return sum(double.usage().values())


def sent(double: StripeDouble) -> list[dict[str, object]]:
    return [seen for seen in double.requests if seen["path"] == EVENTS]


async def test_a_pending_row_becomes_a_meter_event(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1_000)
    done = await side.round()
    assert done.accepted == 1
    [row] = outbox(database)
    assert (row["state"], row["first_sent_at_ns"], row["settled_at_ns"]) == (
        "accepted",
        START_NS,
        START_NS,
    )
    [((_, event_name, hour_s), quantity)] = double.usage().items()
    assert event_name.startswith("cl_llama_input_eu_serverless_")
    assert (hour_s, quantity) == (AN_HOUR_AGO_S, 1_000)
    assert [seen["key"] for seen in sent(double)] == keys(database, "a")
    assert (await side.round()).lanes == 0


async def test_rows_of_many_customers_and_prices_land_where_they_belong(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1)
    put(database, "b", AN_HOUR_AGO_S, 2, customer_id="globex")
    put(database, "c", AN_HOUR_AGO_S, 4, meter="output/llama/eu/serverless")
    put(database, "d", AN_HOUR_AGO_S, 8, micros=160_000)
    put(database, "e", AN_HOUR_AGO_S - HOUR_S, 16)
    assert (await side.round()).accepted == 5
    assert sorted(double.usage().values()) == [1, 2, 4, 8, 16]
    assert len(double.account.objects["customer"]) == 2
    assert len(double.account.objects["billing.meter"]) == 3


@pytest.mark.parametrize("fault", ["answer_lost", "reset_after", "truncated", "stored_500_after"])
async def test_what_arrived_without_an_answer_is_sent_again_and_found_there(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock, fault: str
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1_000)
    double.faults.plan(fault, EVENTS)
    assert (await side.round()).failures == 1
    assert states(database) == {"a": "sending"}
    assert (await side.round()).lanes == 0  # it waits
    clock.turn(5)
    await side.round()
    assert states(database) == {"a": "accepted"}
    assert counted(double) == 1_000
    assert len(set(keys(database, "a"))) == 2
    assert len({str(seen["params"]) for seen in sent(double)}) == 1  # the same identifier


@pytest.mark.parametrize("fault", ["reset_before", "stored_500", "unavailable"])
async def test_what_did_not_arrive_is_sent_again(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock, fault: str
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1_000)
    double.faults.plan(fault, EVENTS, count=3)
    for _ in range(4):
        await side.round()
        clock.turn(30)
    assert states(database) == {"a": "accepted"}
    assert counted(double) == 1_000
    assert len(set(keys(database, "a"))) == 4


async def test_being_turned_away_for_a_day_leaves_no_doubt(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    """HTTP 429 is given before anything is done: nothing has to be looked up."""
    put(database, "a", AN_HOUR_AGO_S, 1_000)
    double.faults.plan("rate_limited", EVENTS, count=2)
    await side.round()
    clock.turn(13 * HOUR_S)
    await side.round()
    clock.turn(13 * HOUR_S)
    await side.round()
    assert states(database) == {"a": "accepted"}
    assert counted(double) == 1_000


async def test_a_refusal_is_for_a_person_and_does_not_stop_the_others(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1)
    await side.round()
    [meter] = double.account.objects["billing.meter"].values()
    meter["status"] = "inactive"
    put(database, "b", AN_HOUR_AGO_S, 2)
    put(database, "c", THIS_HOUR_S, 4, meter="output/llama/eu/serverless")
    done = await side.round()
    assert (done.accepted, done.refused) == (1, 1)
    assert states(database) == {"a": "accepted", "b": "quarantined", "c": "accepted"}
    assert "not active" in outbox(database)[1]["note"]


async def test_a_key_that_stripe_does_not_take_leaves_everything_waiting(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1)
    await side.round()
    right, double.api_key = double.api_key, "sk_test_another"
    put(database, "b", AN_HOUR_AGO_S, 2)
    assert (await side.round()).denied
    assert states(database)["b"] == "sending"
    double.api_key = right
    clock.turn(13 * HOUR_S)  # it did not arrive, so nothing is in doubt
    await side.round()
    assert states(database)["b"] == "accepted"


async def in_doubt(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock, fault: str
) -> None:
    """One accepted row of 100, and one of 7 that was sent unanswered more than a day ago."""
    put(database, "a", AN_HOUR_AGO_S, 100)
    await side.round()
    put(database, "b", AN_HOUR_AGO_S, 7)
    double.faults.plan(fault, EVENTS)
    await side.round()
    assert states(database) == {"a": "accepted", "b": "sending"}
    clock.turn(30 * HOUR_S)  # its identifier is forgotten by now


async def look(side: StripeSide, clock: ManualClock, times: int = 3) -> None:
    for _ in range(times):
        await side.round()
        clock.turn(11 * 60)


@pytest.mark.parametrize("fault", ["answer_lost", "reset_before"])
async def test_an_old_doubt_is_settled_by_stripes_sum(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock, fault: str
) -> None:
    await in_doubt(side, database, double, clock, fault)
    calls = len(sent(double))
    await side.round()
    assert len(sent(double)) == calls, "sent blindly"
    await look(side, clock)
    assert states(database) == {"a": "accepted", "b": "accepted"}
    assert counted(double) == 107
    assert len(sent(double)) == calls + (fault == "reset_before")


async def test_a_naive_resend_would_bill_it_twice(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    """The control: the same event again after Stripe has forgotten it."""
    await in_doubt(side, database, double, clock, "answer_lost")
    [meter_event] = [e for e in double.account.meter_events if e["value"] == 7]
    params = sent(double)[-1]["params"]
    assert isinstance(params, dict)
    assert meter_event["identifier"] == params["identifier"]
    await side.api.send_meter_event(  # what `deliverer` never does
        type_of_event(params), "cl-naive"
    )
    assert counted(double) == 114


def type_of_event(params: dict[str, object]) -> MeterEvent:
    payload = params["payload"]
    assert isinstance(payload, dict)
    return MeterEvent(
        event_name=str(params["event_name"]),
        identifier=str(params["identifier"]),
        stripe_customer=payload["stripe_customer_id"],
        value=int(payload["value"]),
        timestamp_s=int(str(params["timestamp"])),
    )


async def test_a_sum_that_lags_is_not_believed(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    double.aggregation_lag_s = 2 * DAY_S
    await in_doubt(side, database, double, clock, "answer_lost")
    await look(side, clock, 5)
    assert states(database) == {"a": "accepted", "b": "sending"}  # not even `a` shows
    clock.turn(2 * DAY_S)
    await look(side, clock)
    assert states(database) == {"a": "accepted", "b": "accepted"}
    assert counted(double) == 107


async def test_what_cannot_be_told_goes_to_a_person(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 7)
    put(database, "b", AN_HOUR_AGO_S, 7)
    double.faults.plan("answer_lost", EVENTS)
    await side.round()
    clock.turn(5)
    double.faults.plan("reset_before", EVENTS)
    await side.round()
    assert states(database) == {"a": "sending", "b": "sending"}
    clock.turn(30 * HOUR_S)
    await look(side, clock)
    assert states(database) == {"a": "ambiguous", "b": "ambiguous"}
    assert "7 tokens" in outbox(database)[0]["note"]


@pytest.mark.parametrize(
    ("fault", "state"), [("answer_lost", "accepted"), ("reset_before", "quarantined")]
)
async def test_a_refusal_after_an_unanswered_attempt_is_looked_up(
    side: StripeSide,
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
    fault: str,
    state: str,
) -> None:
    """The refusal says nothing of the attempt before it."""
    put(database, "a", AN_HOUR_AGO_S, 100)
    await side.round()
    put(database, "b", AN_HOUR_AGO_S, 7)
    double.faults.plan(fault, EVENTS)
    await side.round()
    [meter] = double.account.objects["billing.meter"].values()
    meter["status"] = "inactive"
    clock.turn(5)
    await side.round()
    assert states(database)["b"] == "sending"
    clock.turn(2 * HOUR_S)
    await look(side, clock)
    assert states(database) == {"a": "accepted", "b": state}


async def test_rows_of_an_hour_in_doubt_wait_for_its_sum(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    await in_doubt(side, database, double, clock, "answer_lost")
    put(database, "c", AN_HOUR_AGO_S, 1)
    put(database, "d", AN_HOUR_AGO_S - HOUR_S, 2)
    await side.round()
    assert states(database)["c"] == "pending"
    assert states(database)["d"] == "accepted"
    await look(side, clock)
    assert set(states(database).values()) == {"accepted"}
    assert counted(double) == 110


async def test_more_tokens_than_an_event_can_carry_are_sent_in_pieces(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    quantity = 2 * (10**15 - 1) + 5
    put(database, "a", AN_HOUR_AGO_S, quantity, micros=1)
    money = outbox(database)[0]["amount_micros"]
    await side.round()
    rows = outbox(database)
    assert [row["row_id"] for row in rows] == ["a", "a~1", "a~2"]
    assert {row["state"] for row in rows} == {"accepted"}
    assert sum(row["amount_micros"] for row in rows) == money
    assert counted(double) == quantity


async def test_usage_of_an_hour_that_has_not_begun_waits(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    put(database, "a", THIS_HOUR_S + HOUR_S, 1)
    assert (await side.round()).waiting == 1
    assert states(database) == {"a": "pending"}
    clock.turn(HOUR_S - 200)
    await side.round()
    assert states(database) == {"a": "accepted"}


async def test_two_control_planes_send_each_row_once(
    database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    double.latency_s = 0.005
    for number in range(24):
        put(database, f"{number:02}", AN_HOUR_AGO_S, 1, customer_id=f"customer-{number % 6}")
    first, second = sdk(double.base_url), sdk(double.base_url)
    sides = [
        StripeSide(database, first, clock, seed=1),
        StripeSide(database, second, clock, seed=2),
    ]
    for _ in range(8):
        await asyncio.gather(*(one.round() for one in sides))
        clock.turn(5)
    assert Counter(states(database).values()) == {"accepted": 24}
    assert counted(double) == 24
    assert len(double.account.objects["customer"]) == 6
    assert len(double.account.objects["subscription"]) == 6
    assert len(double.account.objects["billing.meter"]) == 1
    assert 429 not in [seen["status"] for seen in sent(double)]  # one call per customer and meter
    await first.close()
    await second.close()


async def test_a_lane_is_held_by_one_until_its_lease_ends(
    database: Database, clock: ManualClock
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1)
    now_ns = clock.wall_ns()

    def take(holder: str, at_ns: int) -> int:
        return len(database.transact(lambda c: lease(c, holder, at_ns, at_ns + 1_000, 10)))

    assert take("one", now_ns) == 1
    assert take("two", now_ns) == 0
    assert take("two", now_ns + 999) == 0
    assert take("two", now_ns + 1_000) == 1


async def test_nothing_is_sent_once_the_lease_is_gone(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    """Someone else took the lane while this one was making its way."""
    put(database, "a", AN_HOUR_AGO_S, 1)
    await side.round()
    put(database, "b", AN_HOUR_AGO_S, 2)
    original = side.deliverer._ways

    async def robbed(lane: Lane, now_ns: int) -> Any:
        found = await original(lane, now_ns)
        database.transact(
            lambda connection: connection.execute(update(STRIPE_LANES).values(holder="another"))
        )
        return found

    side.deliverer._ways = robbed  # type: ignore[method-assign]  # the moment in between
    await side.round()
    assert states(database)["b"] == "pending"
    assert counted(double) == 1


async def test_a_person_may_wake_what_waits(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 1)
    double.faults.plan("unavailable", EVENTS)
    await side.round()
    assert (await side.round()).lanes == 0
    database.transact(lambda connection: wake(connection, "acme"))
    assert (await side.round()).accepted == 1


async def test_what_stripe_shows_becomes_reconciled(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    put(database, "a", AN_HOUR_AGO_S, 100)
    put(database, "b", AN_HOUR_AGO_S - HOUR_S, 7)
    await side.round()
    assert await side.facts.round() == 0  # too early to ask
    clock.turn(2 * HOUR_S)
    double.account.meter_events[-1]["cancelled"] = True  # one is missing there
    assert await side.facts.round() == 2
    sums = database.read(
        lambda c: {row.hour_s: row.quantity for row in c.execute(select(STRIPE_READINGS))}
    )
    assert sums == {AN_HOUR_AGO_S: 0, AN_HOUR_AGO_S - HOUR_S: 7}
    by_row = {"a": "accepted", "b": "reconciled"}
    assert states(database) == by_row
