"""What delivery needs in Stripe is made once: items, credits, capacity; and shown to a person."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from appliance.controlplane.billing import capacity
from appliance.controlplane.billing import credits as credit
from appliance.controlplane.database import Database
from appliance.controlplane.errors import NotPossible
from appliance.controlplane.migration import migrate
from appliance.controlplane.payments.flat_fees import FlatFees
from appliance.controlplane.payments.grants import Granter
from appliance.controlplane.payments.metered_items import ITEMS_MAX
from appliance.controlplane.payments.provisioning import link_customer
from appliance.controlplane.payments.stripe_errors import StripeUnavailable
from appliance.controlplane.payments.stripe_names import Tariff, month_of
from appliance.controlplane.payments.stripe_status import stripe_status
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.entropy import SeededEntropy
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe_side import DAY_S, HOUR_S, StripeSide, put, sdk, states

NOW_S = START_NS // 1_000_000_000
MONTH_S, NEXT_MONTH_S = month_of(NOW_S)


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


def tariff(number: int) -> Tariff:
    model = f"model-{number}"
    return Tariff(
        f"input/{model}/eu/serverless", "input", model, "eu", "serverless", 100, 10_000, "usd"
    )


async def test_a_subscription_has_no_more_items_than_stripe_allows(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    for number in range(ITEMS_MAX + 3):
        put(database, f"{number:02}", NOW_S - HOUR_S, 1, meter=tariff(number).meter)
    for _ in range(3):
        await side.round()
    subscriptions = double.account.objects["subscription"].values()
    assert sorted(len(one["items"]["data"]) for one in subscriptions) == [3, ITEMS_MAX]
    assert set(states(database).values()) == {"accepted"}
    prices = [item["price"]["id"] for one in subscriptions for item in one["items"]["data"]]
    assert len(prices) == len(set(prices)) == ITEMS_MAX + 3


async def test_periods_are_the_months_of_utc(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", NOW_S, 1)
    await side.round()
    [subscription] = double.account.objects["subscription"].values()
    [item] = subscription["items"]["data"]
    assert (item["current_period_start"], item["current_period_end"]) == (MONTH_S, NEXT_MONTH_S)


async def test_a_price_that_cannot_be_billed_waits_where_a_person_sees_it(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", NOW_S, 1, micros=7, multiplier_bp=10_001)
    put(database, "b", NOW_S, 1, customer_id="globex")
    await side.round()
    assert states(database) == {"a": "pending", "b": "accepted"}
    shown = database.read(lambda c: stripe_status(c, configured=True))
    [lane] = shown.lanes
    assert (lane.customer_id, lane.failures) == ("acme", 1)
    assert "decimal places" in lane.note
    assert shown.oldest_waiting_ns == 0
    assert {one.state: one.rows for one in shown.states} == {"pending": 1, "accepted": 1}


@pytest.mark.parametrize("fault", ["answer_lost", "stored_500", "stored_500_after", "reset_before"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/billing/meters",
        "/v1/products",
        "/v1/prices",
        "/v1/customers",
        "/v1/subscriptions",
    ],
)
async def test_each_object_is_made_once_whatever_the_network_does(
    tmp_path: Path, double: StripeDouble, clock: ManualClock, path: str, fault: str
) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'control-plane.db'}")
    migrate(database, START_NS)
    api = sdk(double.base_url)
    side = StripeSide(database, api, clock)
    put(database, "a", NOW_S, 1)
    double.faults.plan(fault, path)
    await side.round()
    clock.turn(5)
    await side.round()
    assert states(database) == {"a": "accepted"}
    for kind in ("billing.meter", "product", "price", "customer", "subscription"):
        assert len(double.account.objects[kind]) == 1, kind
    await api.close()
    database.close()


async def test_while_one_control_plane_makes_an_object_another_waits(
    database: Database,
    double: StripeDouble,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apis = [sdk(double.base_url) for _ in range(2)]
    sides = [StripeSide(database, api, clock, seed=seed) for seed, api in enumerate(apis, 1)]
    asked, go_on = asyncio.Event(), asyncio.Event()
    create = apis[0].create_customer

    async def slowly(customer_id: str, name: str, email: str, key: str) -> str:
        asked.set()
        await go_on.wait()
        return await create(customer_id, name, email, key)

    monkeypatch.setattr(apis[0], "create_customer", slowly)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(sides[0].provisioner.customer("acme"))
        await asked.wait()
        with pytest.raises(StripeUnavailable):
            await sides[1].provisioner.customer("acme")
        go_on.set()
    assert await sides[1].provisioner.customer("acme") == first.result()
    assert len(double.account.objects["customer"]) == 1
    for api in apis:
        await api.close()


async def test_a_customer_that_stripe_has_already_is_used(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    known = await side.api.create_customer("legacy", "Acme", "", "k")
    database.transact(lambda c: link_customer(c, "acme", known, START_NS))
    put(database, "a", NOW_S, 1)
    await side.round()
    assert list(double.account.objects["customer"]) == [known]
    with pytest.raises(NotPossible):
        database.transact(lambda c: link_customer(c, "acme", "cus_other", START_NS))


def give(database: Database, micros: int, *, seed: int, since_s: int, until_s: int | None) -> None:
    database.transact(
        lambda connection: credit.grant(
            connection,
            "acme",
            micros=micros,
            reason="welcome",
            since_s=since_s,
            until_s=until_s,
            by="test",
            now_ns=START_NS,
            entropy=SeededEntropy(seed),
        )
    )


async def test_a_credit_pays_for_metered_usage_at_stripe(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    give(database, 1_000_001, seed=1, since_s=NOW_S - DAY_S, until_s=None)
    give(database, 500_000, seed=2, since_s=NOW_S + DAY_S, until_s=NOW_S + 90 * DAY_S)
    give(database, 700_000, seed=3, since_s=NOW_S - 9 * DAY_S, until_s=NOW_S - 1)  # is over
    granter = Granter(database, side.api, side.provisioner, clock, "usd")
    double.faults.plan("answer_lost", "/v1/billing/credit_grants")
    assert await granter.round() == 1
    clock.turn(61)
    assert await granter.round() == 1
    assert await granter.round() == 0
    grants = double.account.objects["billing.credit_grant"].values()
    assert sorted(one["amount"]["monetary"]["value"] for one in grants) == [50, 101]
    put(database, "a", NOW_S, 20_000_000)
    await side.round()
    clock.turn(NEXT_MONTH_S + 2 * HOUR_S - NOW_S)
    await double.settle()
    assert sum(one["total"] for one in double.account.objects["invoice"].values()) == 300 - 151


async def test_capacity_is_a_flat_subscription_while_it_lasts(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    unit = database.transact(
        lambda connection: capacity.add(
            connection,
            "acme",
            model="llama",
            units=10,
            micros_per_unit_month=3_000_000,
            overage=False,
            since_s=MONTH_S,
            by="test",
            now_ns=START_NS,
            entropy=SeededEntropy(1),
        )
    )
    fees = FlatFees(database, side.api, side.provisioner, clock, "usd")
    double.faults.plan("stored_500_after", "/v1/subscriptions")
    assert await fees.round() == 0
    clock.turn(61)
    assert await fees.round() == 1
    assert await fees.round() == 0
    [subscription] = double.account.objects["subscription"].values()
    assert subscription["items"]["data"][0]["quantity"] == 10
    clock.turn(NEXT_MONTH_S + 2 * HOUR_S - clock.wall_ns() // 1_000_000_000)
    await double.settle()
    totals = sorted(one["total"] for one in double.account.objects["invoice"].values())
    assert totals == [3_000, 3_000]  # January, all of it, and February ahead
    now_s = clock.wall_ns() // 1_000_000_000
    database.transact(lambda c: capacity.end(c, unit.capacity_id, now_s))
    clock.turn(HOUR_S)
    assert await fees.round() == 1
    assert await fees.round() == 0
    assert subscription["status"] == "canceled"


async def test_capacity_that_was_over_before_stripe_heard_of_it_is_billed_whole(
    side: StripeSide, database: Database, double: StripeDouble, clock: ManualClock
) -> None:
    """Half of December and the first week of January, by the hour, as the journal counts it."""
    since_s, until_s = MONTH_S - 15 * DAY_S - 12 * HOUR_S, MONTH_S + 7 * DAY_S

    def begin_and_end(connection: Connection) -> None:
        unit = capacity.add(
            connection,
            "acme",
            model="llama",
            units=10,
            micros_per_unit_month=3_100_000,
            overage=False,
            since_s=since_s,
            by="test",
            now_ns=START_NS,
            entropy=SeededEntropy(1),
        )
        capacity.end(connection, unit.capacity_id, until_s)

    database.transact(begin_and_end)
    fees = FlatFees(database, side.api, side.provisioner, clock, "usd")
    double.faults.plan("answer_lost", "/v1/invoiceitems")
    assert await fees.round() == 0
    clock.turn(61)
    assert await fees.round() == 1
    assert await fees.round() == 0
    [item] = double.account.objects["invoiceitem"].values()
    assert item["amount"] == 1_550 + 700
    assert item["period"] == {"start": since_s, "end": until_s - 1}
    assert not double.account.objects["subscription"]


async def test_the_meter_of_the_table_is_the_one_of_the_event(
    side: StripeSide, double: StripeDouble
) -> None:
    route = await side.provisioner.route("acme", tariff(1))
    [meter] = double.account.objects["billing.meter"].values()
    assert (route.event_name, route.meter_id) == (meter["event_name"], meter["id"])
    assert route == await side.provisioner.route("acme", tariff(1))
