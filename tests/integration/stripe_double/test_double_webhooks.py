"""Webhooks: signed, repeated until they are taken, twice and out of order on demand."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import stripe
from aiohttp import web

from tests.fakes.clock import ManualClock
from tests.fakes.stripe.double import StripeDouble


@dataclasses.dataclass(slots=True)
class Receiver:
    """An endpoint that keeps what it gets and answers as it is told."""

    got: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)
    status: int = 200
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.headers["Stripe-Signature"], await request.read()))
        return web.Response(status=self.status)

    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for _, body in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


@pytest.fixture
async def double(receiver: Receiver) -> AsyncIterator[StripeDouble]:
    async with StripeDouble(ManualClock(time.time_ns())) as found:
        found.endpoint(receiver.url)
        yield found


def sdk(double: StripeDouble) -> stripe.StripeClient:
    return stripe.StripeClient(
        double.api_key, base_addresses={"api": double.base_url}, max_network_retries=0
    )


async def create(double: StripeDouble, name: str) -> stripe.Customer:
    client = sdk(double)
    return await asyncio.to_thread(client.v1.customers.create, {"name": name})


async def test_an_event_is_signed_so_that_the_sdk_believes_it(
    double: StripeDouble, receiver: Receiver
) -> None:
    customer = await create(double, "A")
    await double.settle()
    ((signed, body),) = receiver.got
    event = sdk(double).construct_event(body, signed, double.webhook_secret)
    assert event.type == "customer.created"
    assert event.data.object["id"] == customer.id
    with pytest.raises(stripe.SignatureVerificationError):
        sdk(double).construct_event(body + b" ", signed, double.webhook_secret)


async def test_what_is_not_taken_comes_again_later(
    double: StripeDouble, receiver: Receiver
) -> None:
    receiver.status = 500
    await create(double, "A")
    await double.settle()
    assert len(receiver.got) == 1
    receiver.status = 204
    await double.settle()
    assert len(receiver.got) == 1
    await double.advance(60)
    assert len(receiver.got) == 2
    assert len(set(receiver.ids())) == 1
    assert double.webhooks.waiting == []


async def test_it_is_given_up_after_three_days(double: StripeDouble, receiver: Receiver) -> None:
    receiver.status = 500
    await create(double, "A")
    for _ in range(11):
        await double.advance(43_200)
    assert double.webhooks.waiting == []
    assert len(double.webhooks.given_up) == 1


async def test_events_come_twice_and_in_another_order_on_demand(
    double: StripeDouble, receiver: Receiver
) -> None:
    double.webhooks.duplicates = 1
    double.webhooks.hold()
    names = [(await create(double, name)).id for name in "ABCDEFGH"]
    await double.settle()
    assert receiver.got == []
    double.webhooks.release(seed=5)
    await double.settle()
    order = [json.loads(body)["data"]["object"]["id"] for _, body in receiver.got]
    assert sorted(order) == sorted([names[0], *names])
    assert order != [names[0], *names]
    double.webhooks.again(receiver.ids()[0])
    await double.settle()
    assert receiver.ids()[-1] == receiver.ids()[0]


async def test_a_thin_event_is_fetched(double: StripeDouble, receiver: Receiver) -> None:
    client = sdk(double)
    await asyncio.to_thread(
        client.v1.billing.meters.create,
        {
            "display_name": "x",
            "event_name": "x",
            "default_aggregation": {"formula": "sum"},
        },
    )
    await asyncio.to_thread(
        client.v1.billing.meter_events.create,
        {"event_name": "x", "payload": {"stripe_customer_id": "cus_gone", "value": "1"}},
    )
    await double.settle()
    receiver.got.clear()
    await double.advance(60)
    ((signed, body),) = receiver.got
    assert b"reason" not in body
    told = client.parse_event_notification(body, signed, double.webhook_secret)
    assert told.type == "v1.billing.meter.error_report_triggered"
    event = await asyncio.to_thread(told.fetch_event)
    assert event.data.reason.error_count == 1


async def test_an_endpoint_made_by_the_api_has_its_own_secret(
    double: StripeDouble, receiver: Receiver
) -> None:
    client = sdk(double)
    made = await asyncio.to_thread(
        client.v1.webhook_endpoints.create,
        {"url": receiver.url, "enabled_events": ["product.created"]},
    )
    await create(double, "A")
    await asyncio.to_thread(client.v1.products.create, {"name": "P"})
    await double.settle()
    assert made.secret is not None
    mine = [
        body for signed, body in receiver.got if _signed_with(client, body, signed, made.secret)
    ]
    assert [json.loads(body)["type"] for body in mine] == ["product.created"]


def _signed_with(client: stripe.StripeClient, body: bytes, signed: str, secret: str) -> bool:
    try:
        client.construct_event(body, signed, secret)
    except stripe.SignatureVerificationError:
        return False
    return True


async def test_a_restarted_double_knows_what_it_knew(tmp_path: Path) -> None:
    file = tmp_path / "stripe.json"
    async with StripeDouble(ManualClock(), state=file) as first:
        customer = await create(first, "A")
        await first.advance(100)
    async with StripeDouble(ManualClock(), state=file) as second:
        found = await asyncio.to_thread(sdk(second).v1.customers.retrieve, customer.id)
        assert found.name == "A"
        assert second.clock.now_s() == first.clock.now_s()
