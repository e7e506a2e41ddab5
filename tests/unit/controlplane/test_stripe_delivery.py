"""The outbox reaches Stripe: each row once, whatever happens on the way."""

from collections.abc import AsyncIterator

import pytest

from appliance.controlplane.database import Database
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe_side import HOUR_S, StripeSide, put, sdk, states

NOW_S = START_NS // 1_000_000_000
THIS_HOUR_S = NOW_S // HOUR_S * HOUR_S


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def double(clock: ManualClock) -> AsyncIterator[StripeDouble]:
    async with StripeDouble(clock) as running:
        yield running


@pytest.fixture
async def side(
    database: Database, double: StripeDouble, clock: ManualClock
) -> AsyncIterator[StripeSide]:
    api = sdk(double.base_url)
    yield StripeSide(database, api, clock)
    await api.close()


async def test_a_pending_row_becomes_a_meter_event(
    side: StripeSide, database: Database, double: StripeDouble
) -> None:
    put(database, "a", THIS_HOUR_S - HOUR_S, 1_000)
    done = await side.round()
    assert done.accepted == 1
    assert states(database) == {"a": "accepted"}
    [((_, event_name, hour_s), quantity)] = double.usage().items()
    assert event_name.startswith("cl_llama_input_eu_serverless_")
    assert (hour_s, quantity) == (THIS_HOUR_S - HOUR_S, 1_000)
