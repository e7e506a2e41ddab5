"""Idempotency keys: the first answer again, a stored 500 included, and only for the same call."""

import pytest
import stripe

from tests.integration.stripe_double.conftest import DAY_S, HOUR_S, Billed

HOUR = 1_800_000_000
EVENTS = "/v1/billing/meter_events"


def test_a_key_answers_again_without_doing_it_again(client: stripe.StripeClient) -> None:
    first = client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
    again = client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
    assert again.id == first.id
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(client.v1.customers.list().data) == 1


def test_a_key_is_for_one_call_alone(client: stripe.StripeClient) -> None:
    client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
    with pytest.raises(stripe.IdempotencyError) as refused:
        client.v1.customers.create({"name": "B"}, {"idempotency_key": "k"})
    assert refused.value.http_status == 400


def test_a_stored_500_comes_again_with_its_key_and_not_with_another(billed: Billed) -> None:
    billed.threaded.double.faults.plan("stored_500", EVENTS)
    for _ in range(2):
        with pytest.raises(stripe.APIError) as refused:
            billed.send(10, "row", key="attempt-1")
        assert refused.value.http_status == 500
    billed.send(10, "row", key="attempt-2")
    assert billed.sum(HOUR, HOUR + HOUR_S) == 10


def test_a_500_after_the_work_is_found_out_by_the_identifier(billed: Billed) -> None:
    billed.threaded.double.faults.plan("stored_500_after", EVENTS)
    with pytest.raises(stripe.APIError):
        billed.send(10, "row", key="attempt-1")
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        billed.send(10, "row", key="attempt-2")
    assert billed.sum(HOUR, HOUR + HOUR_S) == 10


def test_what_never_began_is_not_kept(billed: Billed) -> None:
    billed.threaded.double.faults.plan("locked", EVENTS)
    with pytest.raises(stripe.RateLimitError):
        billed.send(10, "row", key="k")
    billed.threaded.double.faults.plan("unavailable", EVENTS)
    with pytest.raises(stripe.APIError):
        billed.send(10, "row", key="k")
    with pytest.raises(stripe.InvalidRequestError):
        billed.send("many", "row", key="k")
    billed.send(10, "row", key="k")
    assert billed.sum(HOUR, HOUR + HOUR_S) == 10


def test_a_key_is_forgotten_after_a_day(client: stripe.StripeClient, billed: Billed) -> None:
    first = client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
    billed.threaded.advance(DAY_S)
    again = client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
    assert again.id != first.id
