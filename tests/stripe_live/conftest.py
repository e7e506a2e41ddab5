"""The same behaviours before the double and, with a test key, before Stripe's own test mode.

`STRIPE_SECRET_KEY=sk_test_…` turns the second half on (`make test-stripe`); without it those tests
are skipped and say why. A live key is refused. Everything made at Stripe carries a name of this
run, hangs on a test clock where it can, and is taken away at the end as far as Stripe allows:
meters can only be deactivated.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import stripe

from tests.fakes.clock import ManualClock
from tests.fakes.stripe.threaded import double_in_thread

KEY = os.environ.get("STRIPE_SECRET_KEY", "")
HOUR_S = 3_600
CALL_S = 30
WAIT_S = 600  # how long the real aggregation may take


@dataclass(frozen=True, slots=True)
class Service:
    """Stripe or its double: a client, its time, and how to wait for what it does by itself."""

    name: str
    client: stripe.StripeClient
    now: Callable[[], int]
    wait: Callable[[int], None]  # let so many seconds of aggregation pass
    run: str  # a word of this run, for names that must be new

    def eventually(self, look: Callable[[], object], wanted: object) -> None:
        """Look until it is so; sums and test clocks lag at Stripe."""
        deadline = time.monotonic() + WAIT_S
        while (found := look()) != wanted:
            if self.name == "double" or time.monotonic() > deadline:
                raise AssertionError(f"{found!r} instead of {wanted!r}")
            self.wait(5)


LIVE = (
    pytest.mark.skipif(
        not KEY.startswith("sk_test_"),
        reason="STRIPE_SECRET_KEY=sk_test_… is not set: parity with Stripe itself is not checked",
    ),
    pytest.mark.allow_hosts(["api.stripe.com", "127.0.0.1"]),
    pytest.mark.timeout(1_200),
)


@pytest.fixture(params=["double", pytest.param("stripe", marks=LIVE)])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    run = uuid.uuid4().hex[:12]
    if request.param == "double":
        with double_in_thread(ManualClock()) as threaded:
            yield Service(
                "double", threaded.client(), threaded.double.clock.now_s, threaded.advance, run
            )
        return
    client = stripe.StripeClient(
        KEY, max_network_retries=2, http_client=stripe.RequestsClient(timeout=CALL_S)
    )
    yield Service("stripe", client, lambda: int(time.time()), time.sleep, run)


@dataclass(frozen=True, slots=True)
class Metered:
    """A customer on a test clock, a meter and a price of this run."""

    service: Service
    clock: str
    customer: str
    meter: str
    price: str
    event_name: str

    def send(
        self, value: str, identifier: str, timestamp: int | None = None, key: str | None = None
    ) -> stripe.billing.MeterEvent:
        moment = self.service.now() if timestamp is None else timestamp
        return self.service.client.v1.billing.meter_events.create(
            {
                "event_name": self.event_name,
                "identifier": f"{self.service.run}-{identifier}",
                "payload": {"stripe_customer_id": self.customer, "value": value},
                "timestamp": moment,
            },
            {"idempotency_key": key} if key else {},
        )

    def sum(self, start: int, end: int) -> int:
        found = self.service.client.v1.billing.meters.event_summaries.list(
            self.meter, {"customer": self.customer, "start_time": start, "end_time": end}
        )
        return sum(int(one.aggregated_value) for one in found.data)


@pytest.fixture
def metered(service: Service) -> Iterator[Metered]:
    client = service.client
    clock = client.v1.test_helpers.test_clocks.create({"frozen_time": service.now()})
    customer = client.v1.customers.create(
        {"name": f"parity {service.run}", "test_clock": clock.id, "email": "parity@example.com"}
    )
    event_name = f"parity_{service.run}"
    meter = client.v1.billing.meters.create(
        {
            "display_name": event_name,
            "event_name": event_name,
            "default_aggregation": {"formula": "sum"},
        }
    )
    price = client.v1.prices.create(
        {
            "currency": "usd",
            "product_data": {"name": event_name},
            "unit_amount_decimal": "0.00012",  # type: ignore[typeddict-item] - sent as written
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
            "lookup_key": event_name,
        }
    )
    yield Metered(service, clock.id, customer.id, meter.id, price.id, event_name)
    with contextlib.suppress(stripe.InvalidRequestError):
        client.v1.billing.meters.deactivate(meter.id)
    client.v1.test_helpers.test_clocks.delete(clock.id)
