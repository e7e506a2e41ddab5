"""Requests are checked by the SDK's own parameter types, and answers have the SDK's own fields."""

import inspect
from typing import Any

import pytest
import stripe

from tests.fakes.stripe.errors import ApiError
from tests.fakes.stripe.parameters import checked, decode_pairs
from tests.fakes.stripe.routes import ROUTES
from tests.fakes.stripe.threaded import ThreadedDouble
from tests.integration.stripe_double.conftest import Billed


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_call_has_a_type_of_the_sdk_that_can_be_read(route: Any) -> None:
    with pytest.raises(ApiError) as refused:
        checked(route.shape, {"no_such_parameter": "1"})
    assert refused.value.code == "parameter_unknown"


def test_brackets_become_objects_and_lists() -> None:
    given = decode_pairs(
        [
            ("items[0][price]", "p"),
            ("items[1][price]", "q"),
            ("metadata[a]", "1"),
            ("expand[]", "x"),
        ]
    )
    assert given == {
        "items": {"0": {"price": "p"}, "1": {"price": "q"}},
        "metadata": {"a": "1"},
        "expand": {"0": "x"},
    }
    typed = checked(stripe.params.SubscriptionCreateParams, given)
    assert typed["items"] == [{"price": "p"}, {"price": "q"}]
    assert typed["expand"] == ["x"]


@pytest.mark.parametrize(
    ("path", "given", "code", "param"),
    [
        ("customers", {"nmae": "x"}, "parameter_unknown", "nmae"),
        ("customers", {"address": {"town": "x"}}, "parameter_unknown", "address[town]"),
        ("prices", {"unit_amount": "1"}, "parameter_missing", "currency"),
        (
            "prices",
            {"currency": "usd", "unit_amount": "1.5", "product": "p"},
            "parameter_invalid_integer",
            "unit_amount",
        ),
        ("billing/meter_events", {"event_name": "x"}, "parameter_missing", "payload"),
    ],
)
def test_what_the_sdk_does_not_know_is_refused(
    client: stripe.StripeClient, path: str, given: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.deserialize(client.raw_request("post", f"/v1/{path}", **given), api_mode="V1")
    assert (refused.value.code, refused.value.param) == (code, param)


def test_a_word_that_is_in_no_list_is_refused(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="must be one of day, hour"):
        client.v1.billing.meters.create(
            {
                "display_name": "x",
                "event_name": "x",
                "default_aggregation": {"formula": "sum"},
                "event_time_window": "minute",
            }
        )


def test_a_wrong_key_is_told_and_opens_nothing(threaded: ThreadedDouble) -> None:
    with pytest.raises(stripe.AuthenticationError) as refused:
        threaded.client("sk_test_other").v1.customers.list()
    assert refused.value.http_status == 401
    assert "sk_test_other" not in str(refused.value)


def test_what_is_not_simulated_says_so(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.APIError, match="does not simulate prices with tiers"):
        client.raw_request(
            "post",
            "/v1/prices",
            currency="usd",
            product="p",
            tiers=[{"up_to": "inf", "unit_amount": 1}],
        )
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.raw_request("get", "/v1/charges")


# Fields the SDK calls required which the double leaves out: they are about payments.
LEFT_OUT = {
    stripe.Invoice: {"automatic_tax", "issuer", "payment_settings"},
    stripe.Subscription: {"billing_schedules", "invoice_settings"},
    stripe.SubscriptionItem: {"plan"},
}


def test_answers_have_the_fields_of_the_sdk(billed: Billed) -> None:
    client = billed.client
    billed.send(1_000_000, "one")
    item = client.v1.invoice_items.create(
        {"customer": billed.customer, "amount": 5, "currency": "usd"}
    )
    grant = client.v1.billing.credit_grants.create(
        {
            "customer": billed.customer,
            "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 10}},
            "applicability_config": {"scope": {"price_type": "metered"}},
        }
    )
    billed.threaded.advance(32 * 86_400)
    invoice = billed.invoices()[0]
    subscription = client.v1.subscriptions.retrieve(billed.subscription)
    moved = client.v1.billing.credit_balance_transactions.list({"customer": billed.customer})
    summaries = client.v1.billing.meters.event_summaries.list(
        billed.meter,
        {"customer": billed.customer, "start_time": 1_800_000_000, "end_time": 1_800_003_600},
    )
    found = [
        client.v1.customers.retrieve(billed.customer),
        client.v1.prices.retrieve(billed.price),
        client.v1.products.list().data[0],
        client.v1.billing.meters.retrieve(billed.meter),
        billed.send(1, "two"),
        summaries.data[0],
        subscription,
        subscription["items"].data[0],
        invoice,
        invoice.lines.data[0],
        client.v1.invoice_items.retrieve(item.id),
        grant,
        moved.data[0],
        client.v1.events.list().data[0],
    ]
    for one in found:
        kind = type(one)
        known = inspect.get_annotations(kind)
        held = set(one.to_dict())
        assert kind.__name__ != "StripeObject", one
        # `customer_email` and the like are known; what the SDK has no name for is an invention.
        assert held <= set(known), (kind, held - set(known))
        needed = {
            name
            for name, hint in known.items()
            if "None" not in str(hint)
            and "Optional" not in str(hint)
            and name not in ("OBJECT_NAME", "deleted")
        }
        missing = needed - held - LEFT_OUT.get(kind, set())
        assert not missing, (kind, missing)
