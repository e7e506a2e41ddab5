"""What delivery, late usage and reconciliation rely on, at the double and at Stripe alike."""

from decimal import Decimal

import pytest
import stripe

from tests.stripe_live.conftest import HOUR_S, Metered, Service

DAY_S = 86_400


def test_an_unknown_parameter_is_refused(service: Service) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        service.client.raw_request("post", "/v1/customers", nmae="x")
    assert refused.value.http_status == 400
    assert refused.value.code == "parameter_unknown"
    assert refused.value.param == "nmae"


def test_a_repeated_identifier_is_refused_and_the_words_say_so(metered: Metered) -> None:
    metered.send("7", "row", key=f"{metered.service.run}-1")
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier") as found:
        metered.send("7", "row", key=f"{metered.service.run}-2")
    assert found.value.http_status == 400


def test_an_idempotency_key_gives_the_first_answer(metered: Metered) -> None:
    key, moment = f"{metered.service.run}-key", metered.service.now()
    first = metered.send("7", "row", moment, key)
    again = metered.send("7", "row", moment, key)
    assert again.identifier == first.identifier
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"


def test_an_idempotency_key_is_for_one_call(metered: Metered) -> None:
    key, moment = f"{metered.service.run}-key", metered.service.now()
    metered.send("7", "row", moment, key)
    with pytest.raises(stripe.IdempotencyError):
        metered.send("8", "other", moment, key)


@pytest.mark.parametrize("value", ["1.5", "ten", "1234567890123456"])
def test_a_value_that_is_no_whole_number_of_15_digits_is_refused(
    metered: Metered, value: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        metered.send(value, "row")
    assert refused.value.http_status == 400


@pytest.mark.parametrize("offset_s", [-36 * DAY_S, 600])
def test_a_moment_outside_its_window_is_refused(metered: Metered, offset_s: int) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        metered.send("1", "row", metered.service.now() + offset_s)
    assert refused.value.http_status == 400


def test_an_identifier_has_at_most_100_characters(metered: Metered) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        metered.send("1", "i" * 100)


def test_sums_become_what_was_sent(metered: Metered) -> None:
    start = metered.service.now() // HOUR_S * HOUR_S
    for number in range(3):
        metered.send("5", f"row-{number}")
    metered.service.eventually(lambda: metered.sum(start, start + 2 * HOUR_S), 15)


def test_an_event_name_belongs_to_one_meter(metered: Metered) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        metered.service.client.v1.billing.meters.create(
            {
                "display_name": "again",
                "event_name": metered.event_name,
                "default_aggregation": {"formula": "sum"},
            }
        )


def test_a_deactivated_meter_takes_nothing(metered: Metered) -> None:
    metered.service.client.v1.billing.meters.deactivate(metered.meter)
    with pytest.raises(stripe.InvalidRequestError):
        metered.send("1", "row")


def test_a_metered_price_needs_a_meter(service: Service) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        service.client.v1.prices.create(
            {
                "currency": "usd",
                "product_data": {"name": f"parity {service.run}"},
                "unit_amount": 1,
                "recurring": {"interval": "month", "usage_type": "metered"},
            }
        )


def test_a_price_is_found_by_its_lookup_key(metered: Metered) -> None:
    found = metered.service.client.v1.prices.list({"lookup_keys": [metered.event_name]})
    assert [one.id for one in found.data] == [metered.price]
    assert Decimal(found.data[0].unit_amount_decimal or 0) == Decimal("0.00012")
    assert found.data[0].unit_amount is None


def test_an_invoice_item_bills_price_times_quantity_and_keeps_its_period(metered: Metered) -> None:
    items = metered.service.client.v1.invoice_items
    start = metered.service.now() // HOUR_S * HOUR_S - 40 * DAY_S
    made = items.create(
        {
            "customer": metered.customer,
            "currency": "usd",
            "unit_amount_decimal": Decimal("0.00012"),
            "quantity": 1_004_166,
            "period": {"start": start, "end": start + HOUR_S},
            "metadata": {"late_key": metered.service.run},
        }
    )
    assert made.amount == 120  # 120.49992 cents
    (found,) = items.list({"customer": metered.customer, "pending": True}).data
    assert (found.id, (found.metadata or {})["late_key"]) == (made.id, metered.service.run)
    assert (found.period.start, found.period.end) == (start, start + HOUR_S)


def test_a_period_becomes_an_invoice_and_then_stays_as_it_is(metered: Metered) -> None:
    client, now = metered.service.client, metered.service.now()
    subscription = client.v1.subscriptions.create(
        {
            "customer": metered.customer,
            "items": [{"price": metered.price}],
            "collection_method": "send_invoice",
            "days_until_due": 30,
        }
    )
    end = subscription["items"].data[0].current_period_end
    metered.send("5000000", "row")
    metered.service.eventually(
        lambda: metered.sum(now // HOUR_S * HOUR_S, now // HOUR_S * HOUR_S + 2 * HOUR_S), 5_000_000
    )

    def advance(moment: int) -> None:
        clocks = client.v1.test_helpers.test_clocks
        clocks.advance(metered.clock, {"frozen_time": moment})
        metered.service.eventually(lambda: clocks.retrieve(metered.clock).status, "ready")

    def cycle() -> list[tuple[str | None, int]]:
        found = client.v1.invoices.list({"subscription": subscription.id}).data
        return [
            (one.status, one.total)
            for one in found
            if one.billing_reason == "subscription_cycle" and one.period_end == end
        ]

    advance(end + 60)
    metered.service.eventually(cycle, [("draft", 600)])
    advance(end + 2 * HOUR_S)
    metered.service.eventually(cycle, [("open", 600)])
    metered.send("1000000", "late", end - 60)
    assert cycle() == [("open", 600)]
