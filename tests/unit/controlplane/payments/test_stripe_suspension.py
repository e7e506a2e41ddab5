"""A machine that is suspended between deciding to send and sending."""

from collections.abc import AsyncIterator

import pytest

from appliance.controlplane.database import Database
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe_side import DAY_S, HOUR_S, StripeSide, put, sdk, states

AN_HOUR_AGO_S = START_NS // 1_000_000_000 // HOUR_S * HOUR_S - HOUR_S


class SuspendedClock(ManualClock):
    """Its wall can run on while its monotonic side stands still, as on a machine that sleeps."""

    slept_s = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.slept_s * 1_000_000_000


@pytest.fixture
def clock() -> SuspendedClock:
    return SuspendedClock()


@pytest.fixture
async def double(clock: SuspendedClock) -> AsyncIterator[StripeDouble]:
    async with StripeDouble(clock) as running:
        running.latency_s = 0.0
        yield running


async def test_what_was_to_be_sent_again_is_not_sent_a_day_later(
    database: Database, double: StripeDouble, clock: SuspendedClock
) -> None:
    """The answer is lost, the second attempt is committed, the machine sleeps, and wakes up."""
    api = sdk(double.base_url)
    side = StripeSide(database, api, clock)
    put(database, "a", AN_HOUR_AGO_S, 1_000)
    double.faults.plan("answer_lost", "/v1/billing/meter_events")
    await side.round()
    clock.turn(600)

    async def sleep_first() -> None:
        clock.slept_s += DAY_S + HOUR_S

    turn = side.deliverer._pace.turn
    side.deliverer._pace.turn = sleep_first  # type: ignore[method-assign]  # between claim and call
    await side.round()
    side.deliverer._pace.turn = turn  # type: ignore[method-assign]
    assert sum(double.usage().values()) == 1_000
    for _ in range(4):
        clock.turn(2 * HOUR_S)
        await side.round()
    assert sum(double.usage().values()) == 1_000
    assert states(database)["a"] in {"accepted", "reconciled"}
    await api.close()


async def test_a_first_attempt_that_was_slept_over_is_made_later(
    database: Database, double: StripeDouble, clock: SuspendedClock
) -> None:
    api = sdk(double.base_url)
    side = StripeSide(database, api, clock)
    put(database, "a", AN_HOUR_AGO_S, 1_000)
    turn = side.deliverer._pace.turn

    async def sleep_first() -> None:
        clock.slept_s += DAY_S
        side.deliverer._pace.turn = turn  # type: ignore[method-assign]

    side.deliverer._pace.turn = sleep_first  # type: ignore[method-assign]
    await side.round()
    assert double.usage() == {}
    clock.turn(600)
    await side.round()
    assert sum(double.usage().values()) == 1_000
    await api.close()
