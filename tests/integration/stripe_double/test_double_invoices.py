"""Invoices by the clock, late usage, invoice items, credits, and how subscriptions are made."""

from decimal import Decimal

import pytest
import stripe

from tests.fakes.stripe import periods
from tests.integration.stripe_double.conftest import DAY_S, HOUR_S, Billed

START = 1_800_000_000  # 2027-01-15T08:00:00Z
PERIOD_S = 31 * DAY_S  # to 2027-02-15T08:00:00Z


def test_a_period_becomes_a_draft_and_an_hour_later_final(billed: Billed) -> None:
    billed.send(5_000_000, "one")
    billed.threaded.advance(PERIOD_S)
    draft, first = billed.invoices()
    assert (first.billing_reason, first.total, first.status) == ("subscription_create", 0, "paid")
    assert (draft.status, draft.total, draft.period_end) == ("draft", 600, START + PERIOD_S)
    billed.send(1_000_000, "late, though within the hour", START + PERIOD_S - 1)
    assert billed.invoices()[0].total == 720
    billed.threaded.advance(HOUR_S - 1)
    assert billed.invoices()[0].status == "draft"
    billed.threaded.advance(1)
    final = billed.invoices()[0]
    assert (final.status, final.total, final.lines.data[0].quantity) == ("paid", 720, 6_000_000)


def test_usage_after_the_invoice_is_final_is_on_no_invoice(billed: Billed) -> None:
    billed.send(5_000_000, "one")
    billed.threaded.advance(PERIOD_S + HOUR_S)
    billed.send(1_000_000, "too late", START + 10)
    assert billed.sum(START, START + PERIOD_S) == 6_000_000
    billed.threaded.advance(29 * DAY_S)
    found = billed.invoices()
    assert [one.total for one in found] == [0, 600, 0]
    assert sum(one.lines.data[0].quantity or 0 for one in found[:2]) == 5_000_000


def test_an_invoice_item_bills_what_came_late_and_is_found_again(billed: Billed) -> None:
    items = billed.client.v1.invoice_items
    made = items.create(
        {
            "customer": billed.customer,
            "currency": "usd",
            "unit_amount_decimal": Decimal("0.00012"),
            "quantity": 1_000_000,
            "period": {"start": START, "end": START + HOUR_S},
            "metadata": {"late_key": "lk_1"},
        }
    )
    assert made.amount == 120
    pending = items.list({"customer": billed.customer, "pending": True}).data
    assert [one.metadata["late_key"] for one in pending if one.metadata] == ["lk_1"]
    billed.threaded.advance(PERIOD_S + HOUR_S)
    invoice = billed.invoices()[0]
    assert invoice.total == 120
    (line,) = [one for one in invoice.lines.data if one.amount]
    assert line.metadata["late_key"] == "lk_1"
    assert (line.period.start, line.period.end) == (START, START + HOUR_S)
    assert items.list({"customer": billed.customer, "pending": True}).data == []
    with pytest.raises(stripe.InvalidRequestError, match="final"):
        items.delete(made.id)


def test_an_item_can_go_onto_a_draft_and_not_onto_a_final_invoice(billed: Billed) -> None:
    billed.threaded.advance(PERIOD_S)
    draft = billed.invoices()[0]
    item: stripe.params.InvoiceItemCreateParams = {
        "customer": billed.customer,
        "currency": "usd",
        "amount": 33,
        "invoice": draft.id or "",
    }
    billed.client.v1.invoice_items.create(item)
    assert billed.invoices()[0].total == 33
    billed.threaded.advance(HOUR_S)
    with pytest.raises(stripe.InvalidRequestError, match="no longer a draft"):
        billed.client.v1.invoice_items.create(item)


def test_one_invoice_by_hand_takes_what_is_pending(billed: Billed) -> None:
    billed.client.v1.invoice_items.create(
        {"customer": billed.customer, "currency": "usd", "amount": 50}
    )
    invoice = billed.client.v1.invoices.create(
        {
            "customer": billed.customer,
            "pending_invoice_items_behavior": "include",
            "collection_method": "send_invoice",
            "days_until_due": 14,
        }
    )
    assert invoice.id is not None
    final = billed.client.v1.invoices.finalize_invoice(invoice.id)
    assert (final.status, final.amount_due) == ("open", 50)
    assert final.due_date == START + 14 * DAY_S
    with pytest.raises(stripe.InvalidRequestError, match="already finalized"):
        billed.client.v1.invoices.finalize_invoice(invoice.id)


def test_an_upcoming_invoice_shows_what_was_used_so_far(billed: Billed) -> None:
    billed.send(2_500_000, "one")
    found = billed.client.v1.invoices.create_preview({"subscription": billed.subscription})
    assert (found.total, found.lines.data[0].quantity) == (300, 2_500_000)
    assert len(billed.invoices()) == 1


def test_credits_are_spent_on_metered_lines_when_the_invoice_is_final(billed: Billed) -> None:
    grants = billed.client.v1.billing.credit_grants

    def grant(value: int, priority: int) -> stripe.billing.CreditGrant:
        return grants.create(
            {
                "customer": billed.customer,
                "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": value}},
                "applicability_config": {"scope": {"price_type": "metered"}},
                "priority": priority,
            }
        )

    later, sooner = grant(1_000, 60), grant(100, 10)
    billed.client.v1.invoice_items.create(
        {"customer": billed.customer, "currency": "usd", "amount": 40}
    )
    billed.send(5_000_000, "one")
    billed.threaded.advance(PERIOD_S + HOUR_S)
    invoice = billed.invoices()[0]
    assert (invoice.subtotal, invoice.total) == (640, 40)
    moved = billed.client.v1.billing.credit_balance_transactions
    spent = {
        one.credit_grant: one.debit.amount.monetary.value
        for one in moved.list({"customer": billed.customer}).data
        if one.debit is not None and one.debit.amount.monetary is not None
    }
    assert spent == {sooner.id: 100, later.id: 500}
    summary = billed.client.v1.billing.credit_balance_summary.retrieve(
        {
            "customer": billed.customer,
            "filter": {
                "type": "applicability_scope",
                "applicability_scope": {"price_type": "metered"},
            },
        }
    )
    left = summary.balances[0].available_balance.monetary
    assert left is not None
    assert left.value == 500
    with pytest.raises(stripe.InvalidRequestError, match="cannot be voided"):
        grants.void_grant(later.id)
    assert grants.expire(later.id).expires_at == billed.now


def test_capacity_is_billed_in_advance_and_usage_afterwards(billed: Billed) -> None:
    flat = billed.client.v1.prices.create(
        {
            "currency": "usd",
            "product_data": {"name": "Capacity"},
            "unit_amount": 2_000,
            "recurring": {"interval": "month"},
        }
    )
    subscription = billed.client.v1.subscriptions.create(
        {
            "customer": billed.customer,
            "items": [{"price": flat.id, "quantity": 3}],
            "collection_method": "send_invoice",
            "days_until_due": 30,
        }
    )
    assert isinstance(subscription.latest_invoice, str)
    first = billed.client.v1.invoices.retrieve(subscription.latest_invoice)
    assert (first.status, first.total) == ("open", 6_000)
    billed.client.v1.subscriptions.update(
        subscription.id, {"items": [{"id": subscription["items"].data[0].id, "quantity": 5}]}
    )
    billed.threaded.advance(PERIOD_S + HOUR_S)
    second = billed.client.v1.invoices.list({"subscription": subscription.id}).data[0]
    assert (second.status, second.total) == ("open", 10_000)


def test_a_subscription_has_at_most_20_items_of_different_prices(billed: Billed) -> None:
    prices = [
        billed.client.v1.prices.create(
            {
                "currency": "usd",
                "product_data": {"name": f"p{number}"},
                "unit_amount": 1,
                "recurring": {"interval": "month"},
            }
        ).id
        for number in range(21)
    ]

    def subscribe(wanted: list[str]) -> stripe.Subscription:
        return billed.client.v1.subscriptions.create(
            {"customer": billed.customer, "items": [{"price": price} for price in wanted]}
        )

    with pytest.raises(stripe.InvalidRequestError, match="at most 20"):
        subscribe(prices)
    with pytest.raises(stripe.InvalidRequestError, match="same price"):
        subscribe([prices[0], prices[0]])
    subscription = subscribe(prices[:20])
    with pytest.raises(stripe.InvalidRequestError, match="at most 20"):
        billed.client.v1.subscription_items.create(
            {"subscription": subscription.id, "price": prices[20]}
        )
    assert len(list(subscription["items"].auto_paging_iter())) == 20


def test_a_calendar_month_is_an_anchor(billed: Billed) -> None:
    subscription = billed.client.v1.subscriptions.create(
        {
            "customer": billed.customer,
            "items": [{"price": billed.price}],
            "billing_cycle_anchor_config": {"day_of_month": 1, "hour": 0, "minute": 0, "second": 0},
        }
    )
    end = subscription["items"].data[0].current_period_end
    assert end == 1_801_440_000  # 2027-02-01T00:00:00Z
    billed.send(1_000_000, "one")
    billed.threaded.advance(end + HOUR_S - billed.now)
    cycle = billed.client.v1.invoices.list({"subscription": subscription.id}).data[0]
    assert (cycle.billing_reason, cycle.period_end, cycle.total) == ("subscription_cycle", end, 120)


def test_months_end_on_their_last_day() -> None:
    january_31 = 1_801_353_600  # 2027-01-31T00:00:00Z
    ends, start = [], january_31
    for _ in range(3):
        start = periods.period_end(january_31, "month", 1, start)
        ends.append(start)
    assert ends == [1_803_772_800, 1_806_451_200, 1_809_043_200]  # 28 Feb, 31 Mar, 30 Apr


def test_a_metered_price_needs_a_meter_and_takes_no_quantity(billed: Billed) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="backed by a meter"):
        billed.client.v1.prices.create(
            {
                "currency": "usd",
                "product_data": {"name": "x"},
                "unit_amount": 1,
                "recurring": {"interval": "month", "usage_type": "metered"},
            }
        )
    with pytest.raises(stripe.InvalidRequestError, match="quantity of a metered price"):
        billed.client.v1.subscriptions.create(
            {"customer": billed.customer, "items": [{"price": billed.price, "quantity": 2}]}
        )


def test_lookup_keys_are_unique_and_can_be_moved(client: stripe.StripeClient) -> None:
    def price(*, move: bool = False) -> stripe.Price:
        return client.v1.prices.create(
            {
                "currency": "usd",
                "product_data": {"name": "x"},
                "unit_amount": 1,
                "lookup_key": "k",
                "transfer_lookup_key": move,
            }
        )

    first = price()
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        price()
    second = price(move=True)
    assert [one.id for one in client.v1.prices.list({"lookup_keys": ["k"]}).data] == [second.id]
    assert client.v1.prices.retrieve(first.id).lookup_key is None


def test_customers_are_searched_a_little_later(billed: Billed) -> None:
    query = 'metadata["tenant"]:"ten_1"'
    assert billed.client.v1.customers.search({"query": query}).data == []
    billed.threaded.advance(60)
    (found,) = billed.client.v1.customers.search({"query": query}).data
    assert found.id == billed.customer
    with pytest.raises(stripe.InvalidRequestError, match="parse"):
        billed.client.v1.customers.search({"query": "tenant is ten_1"})


def test_a_test_clock_moves_its_customers_alone(billed: Billed) -> None:
    clocks = billed.client.v1.test_helpers.test_clocks
    clock = clocks.create({"frozen_time": START})
    other = billed.client.v1.customers.create({"name": "B", "test_clock": clock.id})
    billed.client.v1.subscriptions.create(
        {"customer": other.id, "items": [{"price": billed.price}]}
    )
    billed.send(1_000_000, "row", customer=other.id)
    clocks.advance(clock.id, {"frozen_time": START + PERIOD_S + HOUR_S})
    found = billed.client.v1.invoices.list({"customer": other.id}).data
    assert [one.total for one in found] == [120, 0]
    assert len(billed.invoices()) == 1
