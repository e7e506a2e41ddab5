"""Usage: identifiers that expire, limits, sums, cancellations, and errors that are told later."""

import threading

import pytest
import stripe

from tests.integration.stripe_double.conftest import DAY_S, HOUR_S, Billed

HOUR = 1_800_000_000  # the clock's start is the start of an hour


def test_an_identifier_is_refused_for_a_day_and_then_forgotten(billed: Billed) -> None:
    billed.send(10, "row-1")
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier row-1"):
        billed.send(10, "row-1")
    billed.threaded.advance(DAY_S - 1)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        billed.send(10, "row-1", HOUR)
    assert billed.sum(HOUR, HOUR + HOUR_S) == 10
    billed.threaded.advance(1)
    billed.send(10, "row-1", HOUR)  # what a sender who only trusts the identifier would do
    assert billed.sum(HOUR, HOUR + HOUR_S) == 20


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("1.5", "meter_event_invalid_value"),
        ("ten", "meter_event_invalid_value"),
        ("1e3", "meter_event_invalid_value"),
        ("1" * 16, "meter_event_value_too_many_digits"),
    ],
)
def test_a_value_is_a_whole_number_of_at_most_15_digits(
    billed: Billed, value: str, code: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        billed.send(value, "row")
    assert refused.value.code == code
    billed.send("9" * 15, "row")  # the identifier of what was refused is still free


def test_a_moment_is_within_35_days_past_and_5_minutes_ahead(billed: Billed) -> None:
    now = billed.now
    for moment in (now - 35 * DAY_S - 1, now + 301):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            billed.send(1, "row", moment)
        assert refused.value.param == "timestamp"
    billed.send(1, "edge-past", now - 35 * DAY_S)
    billed.send(1, "edge-ahead", now + 300)


def test_names_are_at_most_100_characters(billed: Billed) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        billed.send(1, "i" * 101)
    assert refused.value.param == "identifier"
    billed.send(1, "i" * 100)


def test_sums_by_hour_leave_out_empty_hours_and_come_newest_first(billed: Billed) -> None:
    for hour, value in ((0, 5), (0, 6), (-3, 7)):
        billed.send(value, f"{hour}-{value}", HOUR + hour * HOUR_S)
    found = billed.client.v1.billing.meters.event_summaries.list(
        billed.meter,
        {
            "customer": billed.customer,
            "start_time": HOUR - 5 * HOUR_S,
            "end_time": HOUR + HOUR_S,
            "value_grouping_window": "hour",
        },
    )
    assert [(one.start_time - HOUR, int(one.aggregated_value)) for one in found.data] == [
        (0, 11),
        (-3 * HOUR_S, 7),
    ]
    with pytest.raises(stripe.InvalidRequestError, match="aligned"):
        billed.sum(HOUR + 1, HOUR + HOUR_S)


def test_sums_are_listed_by_the_page(billed: Billed) -> None:
    for number in range(13):
        billed.send(1, f"row-{number}", HOUR - number * HOUR_S)
    found = billed.client.v1.billing.meters.event_summaries.list(
        billed.meter,
        {
            "customer": billed.customer,
            "start_time": HOUR - 12 * HOUR_S,
            "end_time": HOUR + HOUR_S,
            "value_grouping_window": "hour",
        },
    )
    assert found.has_more
    assert len(found.data) == 10
    assert len(list(found.auto_paging_iter())) == 13


def test_sums_lag_behind(billed: Billed) -> None:
    billed.threaded.double.aggregation_lag_s = 600
    billed.send(10, "row")
    assert billed.sum(HOUR, HOUR + HOUR_S) == 0
    billed.threaded.advance(600)
    assert billed.sum(HOUR, HOUR + HOUR_S) == 10


def test_an_event_can_be_cancelled_for_a_day(billed: Billed) -> None:
    def cancel(identifier: str) -> stripe.billing.MeterEventAdjustment:
        return billed.client.v1.billing.meter_event_adjustments.create(
            {
                "event_name": billed.event_name,
                "type": "cancel",
                "cancel": {"identifier": identifier},
            }
        )

    billed.send(10, "wrong")
    billed.send(3, "right")
    assert cancel("wrong").status == "pending"
    assert billed.sum(HOUR, HOUR + HOUR_S) == 3
    billed.threaded.advance(DAY_S + 1)
    with pytest.raises(stripe.InvalidRequestError, match="within 24 hours"):
        cancel("right")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        cancel("never sent")
    assert refused.value.http_status == 404


def test_two_calls_at_once_for_one_customer_and_meter_are_one_too_many(billed: Billed) -> None:
    billed.threaded.double.latency_s = 0.3
    outcomes: list[object] = []

    def send(identifier: str) -> None:
        try:
            outcomes.append(billed.send(1, identifier).identifier)
        except stripe.RateLimitError as refused:
            outcomes.append((refused.http_status, (refused.headers or {})["Stripe-Should-Retry"]))

    threads = [threading.Thread(target=send, args=(f"row-{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (429, "true") in outcomes
    assert len(billed.threaded.double.limits.overlaps) == 1
    assert billed.sum(HOUR, HOUR + HOUR_S) == 1


def test_more_calls_in_a_second_than_allowed_are_refused(billed: Billed) -> None:
    billed.threaded.double.limits.meter_events_per_s = 0
    with pytest.raises(stripe.RateLimitError):
        billed.send(1, "row")


def test_an_unknown_customer_is_told_later_with_the_key_of_the_call(billed: Billed) -> None:
    billed.send(10, "good")
    billed.send(10, "bad", customer="cus_gone", key="attempt-7")  # answered like any other
    billed.threaded.advance(59)
    assert billed.client.v2.core.events.list({"object_id": billed.meter}).data == []
    billed.threaded.advance(1)
    (told,) = billed.client.v2.core.events.list({"object_id": billed.meter}).data
    event = billed.client.v2.core.events.retrieve(told.id)
    assert event.type == "v1.billing.meter.error_report_triggered"
    (problem,) = event.data.reason.error_types
    assert (problem.code, problem.error_count) == ("meter_event_customer_not_found", 1)
    assert problem.sample_errors[0].request.identifier == "attempt-7"
    assert billed.threaded.double.usage() == {(billed.customer, "tokens_input", HOUR): 10}


def test_an_unknown_meter_is_told_later(billed: Billed) -> None:
    billed.client.v1.billing.meter_events.create(
        {
            "event_name": "no_such_meter",
            "payload": {"stripe_customer_id": billed.customer, "value": "1"},
        }
    )
    billed.threaded.advance(60)
    (told,) = billed.client.v2.core.events.list().data
    assert told.type == "v1.billing.meter.no_meter_found"


def test_an_event_name_belongs_to_one_active_meter(billed: Billed) -> None:
    meters = billed.client.v1.billing.meters

    def create() -> stripe.billing.Meter:
        return meters.create(
            {
                "display_name": "Again",
                "event_name": billed.event_name,
                "default_aggregation": {"formula": "sum"},
            }
        )

    with pytest.raises(stripe.InvalidRequestError, match="already an active meter"):
        create()
    assert meters.deactivate(billed.meter).status == "inactive"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        billed.send(1, "row")
    assert refused.value.code == "archived_meter"
    again = create()
    with pytest.raises(stripe.InvalidRequestError, match="already an active meter"):
        meters.reactivate(billed.meter)
    assert [one.id for one in meters.list({"status": "active"}).data] == [again.id]


@pytest.mark.parametrize(("formula", "expected"), [("sum", 12), ("count", 3), ("last", 5)])
def test_a_meter_adds_up_as_it_says(billed: Billed, formula: str, expected: int) -> None:
    meter = billed.client.v1.billing.meters.create(
        {
            "display_name": formula,
            "event_name": formula,
            "default_aggregation": {"formula": formula},
            "value_settings": {"event_payload_key": "amount"},
        }
    )
    for number, value in enumerate((3, 4, 5)):
        billed.client.v1.billing.meter_events.create(
            {
                "event_name": formula,
                "payload": {"stripe_customer_id": billed.customer, "amount": str(value)},
                "timestamp": HOUR + number,
            }
        )
    found = billed.client.v1.billing.meters.event_summaries.list(
        meter.id,
        {"customer": billed.customer, "start_time": HOUR, "end_time": HOUR + HOUR_S},
    )
    assert int(found.data[0].aggregated_value) == expected


def test_events_added_up_beforehand_replace_each_other_within_their_hour(billed: Billed) -> None:
    meter = billed.client.v1.billing.meters.create(
        {
            "display_name": "Hourly",
            "event_name": "hourly",
            "default_aggregation": {"formula": "sum"},
            "event_time_window": "hour",
        }
    )
    for number, (value, moment) in enumerate(((3, 0), (4, 60), (5, -60))):
        billed.client.v1.billing.meter_events.create(
            {
                "event_name": "hourly",
                "identifier": f"hourly-{number}",
                "payload": {"stripe_customer_id": billed.customer, "value": str(value)},
                "timestamp": HOUR + moment,
            }
        )
    found = billed.client.v1.billing.meters.event_summaries.list(
        meter.id,
        {"customer": billed.customer, "start_time": HOUR - HOUR_S, "end_time": HOUR + HOUR_S},
    )
    assert int(found.data[0].aggregated_value) == 9
