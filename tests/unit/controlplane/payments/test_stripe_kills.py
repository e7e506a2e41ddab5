"""Killed at any step, billing goes on where it was: nothing lost, nothing made or billed twice."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from appliance.controlplane.billing import capacity
from appliance.controlplane.billing import credits as credit
from appliance.controlplane.database import Database
from appliance.controlplane.payments.stripe_billing import StripeBilling
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.entropy import SeededEntropy
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe_side import DAY_S, HOUR_S, card, put, sdk, states

NOW_S = START_NS // 1_000_000_000
POINTS = 250  # about as many as the scenario has
STEP = 24


class Killed(BaseException):
    """The process is gone: no handler of ours may see it."""


class Fuse:
    """Blows at the n-th place where a process can be killed."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0

    def pass_by(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            raise Killed


class FusedApi:
    """Stripe's API with a place before and after each call."""

    def __init__(self, api: Any, fuse: Fuse) -> None:
        self._api = api
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._api, name)
        if name == "close":
            return method

        async def call(*args: Any) -> Any:
            self._fuse.pass_by()
            answer = await method(*args)
            self._fuse.pass_by()
            return answer

        return call


class FusedDatabase:
    """A database with a place before and after each transaction, and one before its commit."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        self._database = database
        self._fuse = fuse

    async def aread(self, run: Callable[[Connection], Any]) -> Any:
        return await self._database.aread(run)

    async def arun(self, run: Callable[[Connection], Any]) -> Any:
        self._fuse.pass_by()

        def cut(connection: Connection) -> Any:
            done = run(connection)
            self._fuse.pass_by()
            return done

        done = await self._database.arun(cut)
        self._fuse.pass_by()
        return done


def billing(
    database: Database, double: StripeDouble, clock: ManualClock, fuse: Fuse, seed: int
) -> StripeBilling:
    fused: Any = FusedDatabase(database, fuse)
    api: Any = FusedApi(sdk(double.base_url), fuse)
    return StripeBilling(
        fused,
        api,
        clock,
        SeededEntropy(seed),
        card,
        currency="usd",
        webhook_secret="",
        late_quiet_s=0,
    )


def usage(database: Database) -> None:
    """What billing hands over: usage of now and of long ago, a credit, and capacity."""
    put(database, "a", NOW_S - HOUR_S, 1)
    put(database, "b", NOW_S - HOUR_S, 2, meter="output/llama/eu/serverless")
    put(database, "c", NOW_S - 2 * HOUR_S, 4)
    put(database, "d", NOW_S - 400 * DAY_S, 8)
    entropy = SeededEntropy(99)

    def give(connection: Connection) -> None:
        credit.grant(
            connection,
            "acme",
            micros=5_000_000,
            reason="welcome",
            since_s=NOW_S,
            until_s=None,
            by="test",
            now_ns=START_NS,
            entropy=entropy,
        )
        capacity.add(
            connection,
            "acme",
            model="llama",
            units=10,
            micros_per_unit_month=3_000_000,
            overage=False,
            since_s=NOW_S,
            by="test",
            now_ns=START_NS,
            entropy=entropy,
        )

    database.transact(give)


async def turned(one: StripeBilling, clock: ManualClock, turns: int) -> bool:
    """So many turns; False if the fuse blew."""
    try:
        for _ in range(turns):
            await one.turn()
            clock.turn(150)
    except (Killed, BaseExceptionGroup):
        return False
    finally:
        await one.api.close()
    return True


def check(database: Database, double: StripeDouble) -> None:
    assert states(database) == {"a": "accepted", "b": "accepted", "c": "accepted", "d": "late"}
    assert sorted(double.usage().values()) == [1, 2, 4]
    made = Counter({kind: len(found) for kind, found in double.account.objects.items()})
    assert made["billing.meter"] == 2
    assert made["price"] == 3  # two of meters, one of capacity
    assert made["product"] == 3
    assert made["customer"] == 1
    assert made["subscription"] == 2  # usage, and capacity
    assert made["subscription_item"] == 3
    assert made["billing.credit_grant"] == 1
    [item] = double.account.objects["invoiceitem"].values()
    assert item["quantity"] == 8


async def killed_at(database: Database, point: int) -> bool:
    """The whole scenario with one kill; False if there is no such point.

    Called for every point up to the first that is not reached, this tries all of them.
    """
    clock = ManualClock()
    fuse = Fuse(point)
    async with StripeDouble(clock) as double:
        double.latency_s = 0.0
        usage(database)
        reached = not await turned(billing(database, double, clock, fuse, 1), clock, 3)
        clock.turn(150)
        assert await turned(billing(database, double, clock, Fuse(0), 2), clock, 4)
        check(database, double)
    return reached


@pytest.mark.parametrize("point", range(1, POINTS, STEP))
async def test_a_kill_at_a_step(database: Database, point: int) -> None:
    await killed_at(database, point)


async def test_the_points_above_are_those_of_the_scenario(database: Database) -> None:
    clock, fuse = ManualClock(), Fuse(0)
    async with StripeDouble(clock) as double:
        usage(database)
        assert await turned(billing(database, double, clock, fuse, 1), clock, 3)
        check(database, double)
    assert fuse.passed > POINTS - STEP
