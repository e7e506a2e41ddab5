"""What the SDK answers, in our words: which failures may be repeated, and how."""

import logging
from collections.abc import AsyncIterator

import pytest

from appliance.controlplane.payments.stripe_api import StripeSdk
from appliance.controlplane.payments.stripe_errors import (
    BadStripeEvent,
    StripeDenied,
    StripeDuplicate,
    StripeNotConfigured,
    StripeRefused,
    StripeUnavailable,
)
from appliance.controlplane.payments.stripe_objects import MeterEvent, NewPrice
from appliance.controlplane.payments.stripe_shapes import notice, summary
from tests.fakes.clock import START_NS, ManualClock
from tests.fakes.stripe.double import StripeDouble
from tests.fakes.stripe.webhooks import signature
from tests.fakes.stripe_side import HOUR_S, sdk

NOW_S = START_NS // 1_000_000_000
EVENTS = "/v1/billing/meter_events"
SECRET = "whsec_test"


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    async with StripeDouble(ManualClock()) as running:
        running.latency_s = 0.0
        yield running


@pytest.fixture
async def api(double: StripeDouble) -> AsyncIterator[StripeSdk]:
    opened = sdk(double.base_url, timeout_s=0.5)
    yield opened
    await opened.close()


async def metered(api: StripeSdk) -> MeterEvent:
    """A meter and a customer, and an event for them."""
    await api.create_meter("tokens", "Tokens", "k-meter")
    customer = await api.create_customer("acme", "Acme", "", "k-customer")
    return MeterEvent("tokens", "one", customer, 5, NOW_S)


async def test_an_event_is_taken_once(api: StripeSdk, double: StripeDouble) -> None:
    event = await metered(api)
    await api.send_meter_event(event, "k-1")
    with pytest.raises(StripeDuplicate):
        await api.send_meter_event(event, "k-2")
    assert list(double.usage().values()) == [5]


@pytest.mark.parametrize(
    ("fault", "stored", "limited"),
    [
        ("answer_lost", False, False),
        ("reset_before", False, False),
        ("reset_after", False, False),
        ("truncated", False, False),
        ("slow", False, False),
        ("stored_500", True, False),
        ("unavailable", True, False),
        ("rate_limited", False, True),
        ("locked", False, True),
    ],
)
async def test_a_failure_says_whether_the_key_is_spent(
    api: StripeSdk,
    double: StripeDouble,
    fault: str,
    stored: bool,  # noqa: FBT001 - a column of the table above
    limited: bool,  # noqa: FBT001 - another
) -> None:
    event = await metered(api)
    double.faults.plan(fault, EVENTS, seconds=2.0)
    with pytest.raises(StripeUnavailable) as raised:
        await api.send_meter_event(event, "k-1")
    assert (raised.value.stored, raised.value.limited) == (stored, limited)
    assert len([one for one in double.requests if one["path"] == EVENTS]) <= 1, "the SDK retried"


async def test_a_stored_failure_is_replayed_to_the_same_key_only(
    api: StripeSdk, double: StripeDouble
) -> None:
    event = await metered(api)
    double.faults.plan("stored_500", EVENTS)
    for _ in range(3):
        with pytest.raises(StripeUnavailable):
            await api.send_meter_event(event, "k-1")
    await api.send_meter_event(event, "k-2")
    assert list(double.usage().values()) == [5]


async def test_what_stripe_will_never_take_is_refused_with_its_words(
    api: StripeSdk, double: StripeDouble
) -> None:
    event = await metered(api)
    old = MeterEvent("tokens", "old", event.stripe_customer, 5, NOW_S - 36 * 86_400)
    with pytest.raises(StripeRefused, match="35 days") as raised:
        await api.send_meter_event(old, "k-1")
    assert raised.value.reason == "timestamp_too_far_in_past"


async def test_a_wrong_key_is_told_without_being_shown(
    double: StripeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = StripeSdk("sk_test_topsecret", api_base=double.base_url)
    with pytest.raises(StripeDenied) as raised:
        await wrong.meters()
    await wrong.close()
    assert "topsecret" not in str(raised.value)
    assert "topsecret" not in caplog.text


def test_there_is_no_client_without_a_key() -> None:
    with pytest.raises(StripeNotConfigured):
        StripeSdk("")


async def test_an_address_where_nobody_answers_is_unavailable() -> None:
    api = StripeSdk("sk_test_double", api_base="http://127.0.0.1:9", connect_s=0.5)
    with pytest.raises(StripeUnavailable):
        await api.meters()
    await api.close()


async def test_lists_are_read_to_their_end(api: StripeSdk) -> None:
    for number in range(101):
        await api.create_meter(f"tokens-{number}", "Tokens", f"k-{number}")
    assert len({meter.event_name for meter in await api.meters()}) == 101


async def test_sums_are_read_by_the_hour(api: StripeSdk, double: StripeDouble) -> None:
    event = await metered(api)
    [meter] = await api.meters()
    for hour in range(150):
        moment_s = NOW_S - hour * HOUR_S
        one = MeterEvent("tokens", f"e{hour}", event.stripe_customer, hour + 1, moment_s)
        await api.send_meter_event(one, f"k-{hour}")
    hour_s = NOW_S // HOUR_S * HOUR_S
    sums = await api.summaries(
        meter.meter_id, event.stripe_customer, hour_s - 149 * HOUR_S, hour_s + HOUR_S
    )
    assert sums == {hour_s - hour * HOUR_S: hour + 1 for hour in range(150)}


async def test_a_tiny_price_is_written_without_an_exponent(
    api: StripeSdk, double: StripeDouble
) -> None:
    meter = await api.create_meter("tokens", "Tokens", "k-meter")
    await api.create_product("cl_1", "Tokens", "k-product")
    await api.create_price(
        NewPrice("tokens", "cl_1", "usd", "0.0000000001", "Tokens", meter.meter_id), "k-price"
    )
    [price] = double.account.objects["price"].values()
    assert price["unit_amount_decimal"] == "0.0000000001"
    assert await api.price("tokens") == price["id"]
    assert await api.price("others") is None
    assert await api.product("cl_1")
    assert not await api.product("cl_2")


RAW = b'{"id":"evt_1","object":"event","type":"invoice.paid","data":{"object":{"id":"in_1"}}}'


@pytest.mark.parametrize("skew_s", [-300, 0, 300])
async def test_a_webhook_is_opened_within_five_minutes(api: StripeSdk, skew_s: int) -> None:
    header = signature(RAW.decode(), SECRET, NOW_S + skew_s)
    found = api.open_webhook(RAW, header, SECRET, NOW_S)
    assert (found.event_id, found.type, found.object_id) == ("evt_1", "invoice.paid", "in_1")


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        (RAW, signature(RAW.decode(), SECRET, NOW_S - 301)),
        (RAW, signature(RAW.decode(), SECRET, NOW_S + 301)),
        (RAW, signature(RAW.decode(), "whsec_other", NOW_S)),
        (RAW + b" ", signature(RAW.decode(), SECRET, NOW_S)),
        (RAW, ""),
        (RAW, "nonsense"),
        (RAW, f"t={NOW_S}"),
        (b"\xff", f"t={NOW_S},v1=00"),
        (b"[]", signature("[]", SECRET, NOW_S)),
        (b"{}", signature("{}", SECRET, NOW_S)),
        (b"{", signature("{", SECRET, NOW_S)),
        (b'{"id":1,"type":2,"data":{"object":{}}}', signature('{"id":1,"type":2}', SECRET, NOW_S)),
        (b"[" * 50_000, signature("[" * 50_000, SECRET, NOW_S)),
    ],
)
async def test_no_other_webhook_is_opened(api: StripeSdk, raw: bytes, header: str) -> None:
    with pytest.raises(BadStripeEvent):
        api.open_webhook(raw, header, SECRET, NOW_S)


async def test_without_a_secret_nothing_is_believed(api: StripeSdk) -> None:
    with pytest.raises(BadStripeEvent):
        api.open_webhook(RAW, signature(RAW.decode(), "", NOW_S), "", NOW_S)


def test_a_thin_event_names_its_object() -> None:
    found = notice(
        {
            "id": "evt_2",
            "object": "v2.core.event",
            "type": "v1.billing.meter.error_report_triggered",
            "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/x"},
        }
    )
    assert found.object_id == "mtr_1"


def test_a_sum_with_a_fraction_is_no_number_of_tokens() -> None:
    assert summary({"start_time": 0, "aggregated_value": 15.0}) == (0, 15)
    with pytest.raises(StripeUnavailable):
        summary({"start_time": 0, "aggregated_value": 15.5})
