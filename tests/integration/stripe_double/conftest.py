"""A double in its own thread, the real SDK before it, and a customer whose usage is billed."""

import dataclasses
from collections.abc import Iterator

import pytest
import stripe

from tests.fakes.clock import ManualClock
from tests.fakes.stripe.threaded import ThreadedDouble, double_in_thread

HOUR_S = 3_600
DAY_S = 86_400


@pytest.fixture
def threaded() -> Iterator[ThreadedDouble]:
    with double_in_thread(ManualClock()) as found:
        yield found


@pytest.fixture
def client(threaded: ThreadedDouble) -> stripe.StripeClient:
    return threaded.client()


@dataclasses.dataclass(frozen=True, slots=True)
class Billed:
    """A customer with a subscription to one metered price."""

    threaded: ThreadedDouble
    client: stripe.StripeClient
    customer: str
    meter: str
    price: str
    subscription: str
    event_name: str = "tokens_input"

    @property
    def now(self) -> int:
        return self.threaded.double.clock.now_s()

    def send(
        self,
        value: int | str,
        identifier: str,
        timestamp: int | None = None,
        *,
        customer: str | None = None,
        key: str | None = None,
    ) -> stripe.billing.MeterEvent:
        return self.client.v1.billing.meter_events.create(
            {
                "event_name": self.event_name,
                "identifier": identifier,
                "payload": {
                    "stripe_customer_id": customer or self.customer,
                    "value": str(value),
                },
                "timestamp": self.now if timestamp is None else timestamp,
            },
            {"idempotency_key": key} if key else {},
        )

    def sum(self, start: int, end: int) -> int:
        """What the API itself says was metered."""
        found = self.client.v1.billing.meters.event_summaries.list(
            self.meter, {"customer": self.customer, "start_time": start, "end_time": end}
        )
        return int(found.data[0].aggregated_value)

    def invoices(self) -> list[stripe.Invoice]:
        return list(self.client.v1.invoices.list({"customer": self.customer}).data)


@pytest.fixture
def billed(threaded: ThreadedDouble, client: stripe.StripeClient) -> Billed:
    customer = client.v1.customers.create({"name": "Hospital", "metadata": {"tenant": "ten_1"}})
    meter = client.v1.billing.meters.create(
        {
            "display_name": "Input tokens",
            "event_name": "tokens_input",
            "default_aggregation": {"formula": "sum"},
        }
    )
    price = client.v1.prices.create(
        {
            "currency": "usd",
            "product_data": {"name": "Input tokens"},
            "unit_amount_decimal": "0.00012",  # type: ignore[typeddict-item] - sent as written
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
        }
    )
    subscription = client.v1.subscriptions.create(
        {"customer": customer.id, "items": [{"price": price.id}]}
    )
    return Billed(threaded, client, customer.id, meter.id, price.id, subscription.id)
