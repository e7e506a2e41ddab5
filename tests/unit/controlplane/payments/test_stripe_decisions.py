"""What becomes of a row, decided by pure functions."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance.controlplane.payments.delivery import (
    DAY_S,
    HOUR_S,
    SAME_FOR_S,
    SETTLED_AFTER_S,
    VALUE_MAX,
    Doubtful,
    Fate,
    PeriodState,
    Presence,
    Step,
    Sum,
    back_off_s,
    hour_fate,
    next_step,
    pieces,
    verdict,
)
from appliance.controlplane.payments.invoices import (
    HELD_MAX_S,
    PUT_OFF_BY_S,
    TIME_LEFT_S,
    period_state,
    put_off_until_s,
)
from appliance.controlplane.payments.pace import Pace
from appliance.controlplane.payments.stripe_errors import PriceTooFine
from appliance.controlplane.payments.stripe_names import (
    NAME_MAX,
    Tariff,
    another_identifier,
    minor_digits,
    minor_rounded_up,
    month_of,
)
from appliance.controlplane.payments.stripe_objects import Invoice
from tests.fakes.clock import ManualClock

HOUR = 500_000 * HOUR_S
TARIFF = Tariff(
    "input/llama/in/serverless", "input", "llama", "in", "serverless", 150_000, 7_000, "usd"
)
DRAFT = Invoice(
    invoice_id="in_1",
    stripe_customer="cus_1",
    subscription="sub_1",
    status="draft",
    period_start_s=HOUR - 30 * DAY_S,
    period_end_s=HOUR,
    finalizes_at_s=HOUR + HOUR_S,
    currency="usd",
    total_minor=0,
    paid_minor=0,
)


@pytest.mark.parametrize(
    ("age_s", "fate"),
    [
        (33 * DAY_S + 23 * HOUR_S, Fate.METERED),
        (34 * DAY_S - 1, Fate.METERED),
        (34 * DAY_S, Fate.LATE),
        (34 * DAY_S + 23 * HOUR_S, Fate.LATE),
        (35 * DAY_S, Fate.LATE),
        (36 * DAY_S, Fate.LATE),
        (400 * DAY_S, Fate.LATE),
        (0, Fate.METERED),
        (-300, Fate.METERED),
        (-301, Fate.WAIT),
    ],
)
def test_the_age_of_an_hour_decides_how_it_is_billed(age_s: int, fate: Fate) -> None:
    found = hour_fate(HOUR, 0, PeriodState.OPEN, HOUR + age_s)
    assert found.fate is fate
    assert found.timestamp_s == HOUR


@pytest.mark.parametrize(
    ("period", "fate"),
    [
        (PeriodState.OPEN, Fate.METERED),
        (PeriodState.FINAL, Fate.LATE),
        (PeriodState.UNKNOWN, Fate.WAIT),
    ],
)
def test_a_period_takes_usage_until_its_invoice_is_final(period: PeriodState, fate: Fate) -> None:
    assert hour_fate(HOUR, 0, period, HOUR + 3 * DAY_S).fate is fate


@given(covered=some.integers(-2 * HOUR_S, 2 * HOUR_S), age=some.integers(-600, 400 * DAY_S))
def test_a_meter_event_stays_inside_its_hour_and_stripes_limits(covered: int, age: int) -> None:
    now_s = HOUR + age
    found = hour_fate(HOUR, HOUR + covered, PeriodState.OPEN, now_s)
    if found.fate is Fate.METERED:
        assert HOUR <= found.timestamp_s < HOUR + HOUR_S
        assert found.timestamp_s >= HOUR + covered
        assert now_s - 35 * DAY_S < found.timestamp_s <= now_s + 300
    elif covered >= HOUR_S:
        assert found.fate is Fate.LATE


@pytest.mark.parametrize(
    ("fate", "doubt_age_s", "suspect", "step"),
    [
        (Fate.METERED, None, False, Step.SEND),
        (Fate.LATE, None, False, Step.BILL_LATE),
        (Fate.WAIT, None, False, Step.WAIT),
        (Fate.METERED, 0, False, Step.SEND),
        (Fate.METERED, 12 * HOUR_S - 1, False, Step.SEND),
        (Fate.METERED, 12 * HOUR_S, False, Step.LOOK_UP),
        (Fate.METERED, 40 * DAY_S, False, Step.LOOK_UP),
        (Fate.LATE, 5, False, Step.LOOK_UP),
        (Fate.WAIT, 5, False, Step.LOOK_UP),
        (Fate.METERED, None, True, Step.LOOK_UP),
        (Fate.METERED, 5, True, Step.LOOK_UP),
    ],
)
def test_nothing_that_may_have_arrived_is_sent_blindly_after_half_a_day(
    fate: Fate,
    doubt_age_s: int | None,
    suspect: bool,  # noqa: FBT001 - a column of the table above
    step: Step,
) -> None:
    doubt_since_s = None if doubt_age_s is None else HOUR - doubt_age_s
    assert next_step(fate, doubt_since_s, suspect=suspect, now_s=HOUR) is step


def settled(quantity: int) -> Sum:
    return Sum(quantity, same_since_s=HOUR - SAME_FOR_S, read_at_s=HOUR)


LAST = HOUR - SETTLED_AFTER_S
AB = [Doubtful("a", 5), Doubtful("b", 7)]


@pytest.mark.parametrize(
    ("quantity", "arrived"),
    [(100, set()), (105, {"a"}), (107, {"b"}), (112, {"a", "b"})],
)
def test_a_settled_sum_tells_which_rows_arrived(quantity: int, arrived: set[str]) -> None:
    found = verdict(settled(quantity), 100, AB, LAST, HOUR)
    assert (found.presence, found.arrived) == (Presence.KNOWN, frozenset(arrived))


def test_a_sum_that_has_not_settled_decides_nothing() -> None:
    moving = Sum(112, same_since_s=HOUR - SAME_FOR_S + 1, read_at_s=HOUR)
    assert verdict(moving, 100, AB, LAST, HOUR).presence is Presence.NOT_YET
    fresh = verdict(settled(112), 100, AB, LAST + 1, HOUR)
    assert fresh.presence is Presence.NOT_YET


def test_a_sum_that_fits_nothing_is_waited_for_and_then_given_to_a_person() -> None:
    assert verdict(settled(99), 100, AB, LAST, HOUR).presence is Presence.NOT_YET
    long_ago = HOUR - 3 * DAY_S
    found = verdict(settled(99), 100, AB, long_ago, HOUR)
    assert found.presence is Presence.UNDECIDABLE
    assert "99" in found.reason


def test_a_sum_that_fits_in_two_ways_is_given_to_a_person() -> None:
    twins = [Doubtful("a", 5), Doubtful("b", 5)]
    assert verdict(settled(105), 100, twins, LAST, HOUR).presence is Presence.UNDECIDABLE
    assert verdict(settled(110), 100, twins, LAST, HOUR).arrived == {"a", "b"}


def test_of_too_many_rows_only_all_or_none_can_be_told() -> None:
    many = [Doubtful(str(number), 1 << number) for number in range(13)]
    assert len(verdict(settled(100 + (1 << 13) - 1), 100, many, LAST, HOUR).arrived) == 13
    assert verdict(settled(100), 100, many, LAST, HOUR).arrived == frozenset()
    assert verdict(settled(101), 100, many, LAST, HOUR).presence is Presence.NOT_YET


@given(
    quantities=some.lists(some.integers(1, 10**6), max_size=8),
    bits=some.integers(0, 255),
    accepted=some.integers(0, 10**9),
)
def test_a_verdict_never_contradicts_the_sum(
    quantities: list[int], bits: int, accepted: int
) -> None:
    doubtful = [Doubtful(str(number), one) for number, one in enumerate(quantities)]
    truth = {row.row_id for row in doubtful if bits >> int(row.row_id) & 1}
    beyond = sum(row.quantity for row in doubtful if row.row_id in truth)
    found = verdict(settled(accepted + beyond), accepted, doubtful, LAST, HOUR)
    if found.presence is Presence.KNOWN:
        assert found.arrived == truth  # the only set that fits is the true one
    else:
        assert found.presence is Presence.UNDECIDABLE


@given(some.integers(1, 2**63 - 1))
def test_pieces_of_a_quantity_add_up_and_fit(quantity: int) -> None:
    found = pieces(quantity)
    assert sum(found) == quantity
    assert all(0 < one <= VALUE_MAX for one in found)
    assert len(str(VALUE_MAX)) == 15


def test_backing_off_grows_to_five_minutes_and_scatters() -> None:
    longest = [max(back_off_s(failures, jitter) for jitter in range(400)) for failures in range(12)]
    assert longest == sorted(longest)
    assert longest[-1] <= 301
    assert len({back_off_s(9, jitter) for jitter in range(100)}) > 50
    assert all(back_off_s(failures, 0) >= 1 for failures in range(12))


@pytest.mark.parametrize(
    ("micros", "multiplier_bp", "currency", "digits"),
    [
        (150_000, 10_000, "usd", "0.000015"),
        (150_000, 7_000, "usd", "0.0000105"),
        (1, 10_000, "usd", "0.0000000001"),
        (1, 7_000, "eur", "0.00000000007"),
        (0, 10_000, "usd", "0"),
        (20_000_000_000, 11_000, "usd", "2.2"),
        (150_000, 10_000, "jpy", "0.00000015"),
        (150_000, 10_000, "kwd", "0.00015"),
    ],
)
def test_a_price_is_written_in_plain_digits(
    micros: int, multiplier_bp: int, currency: str, digits: str
) -> None:
    assert minor_digits(micros, multiplier_bp, currency) == digits


def test_a_price_that_stripe_would_round_is_refused() -> None:
    with pytest.raises(PriceTooFine):
        minor_digits(1, 10_001, "usd")


@given(micros=some.integers(0, 10**12), percent=some.integers(1, 400))
def test_a_price_loses_nothing(micros: int, percent: int) -> None:
    digits = minor_digits(micros, percent * 100, "usd")
    assert Decimal(digits) * 10**12 == Decimal(micros) * percent
    assert "E" not in digits


def test_a_fraction_of_a_cent_is_rounded_up() -> None:
    assert [minor_rounded_up(micros, "usd") for micros in (0, 1, 10_000, 10_001)] == [0, 1, 1, 2]


def test_each_price_of_a_meter_has_an_event_name_of_its_own() -> None:
    dearer = replace(TARIFF, micros_per_million=150_001)
    elsewhere = replace(TARIFF, multiplier_bp=10_000)
    names = {TARIFF.event_name, dearer.event_name, elsewhere.event_name}
    assert len(names) == 3
    assert TARIFF.product_id == dearer.product_id


@given(some.text(min_size=1, max_size=300))
def test_names_fit_whatever_a_model_is_called(model: str) -> None:
    name = replace(TARIFF, model=model, meter=f"input/{model}/in/serverless").event_name
    assert len(name) <= NAME_MAX
    assert name.isascii()


@given(some.text(some.characters(codec="ascii"), min_size=1, max_size=100), some.integers(1, 9999))
def test_another_identifier_differs_and_fits(identifier: str, number: int) -> None:
    other = another_identifier(identifier, number)
    assert other != identifier
    assert len(other) <= NAME_MAX
    assert other != another_identifier(identifier, number + 1)


@pytest.mark.parametrize(
    ("moment_s", "start_s", "following_s"),
    [
        (1_709_164_800, 1_706_745_600, 1_709_251_200),  # 29 February 2024
        (1_704_067_199, 1_701_388_800, 1_704_067_200),  # the last second of 2023
        (1_704_067_200, 1_704_067_200, 1_706_745_600),
    ],
)
def test_months_are_those_of_utc(moment_s: int, start_s: int, following_s: int) -> None:
    assert month_of(moment_s) == (start_s, following_s)


@pytest.mark.parametrize(
    ("invoice", "now_s", "state"),
    [
        (None, HOUR - 1, PeriodState.OPEN),
        (None, HOUR, PeriodState.UNKNOWN),
        (None, HOUR + 6 * HOUR_S, PeriodState.FINAL),
        (DRAFT, HOUR + 60, PeriodState.OPEN),
        (DRAFT, HOUR + HOUR_S - TIME_LEFT_S, PeriodState.UNKNOWN),
        (replace(DRAFT, finalizes_at_s=None), HOUR + 60, PeriodState.OPEN),
        (replace(DRAFT, status="open"), HOUR + 60, PeriodState.FINAL),
        (replace(DRAFT, status="paid"), HOUR + 60, PeriodState.FINAL),
        (replace(DRAFT, status="void"), HOUR + 60, PeriodState.FINAL),
    ],
)
def test_an_invoice_tells_whether_its_period_still_takes_usage(
    invoice: Invoice | None, now_s: int, state: PeriodState
) -> None:
    assert period_state(invoice, HOUR, now_s) is state


def test_a_draft_is_kept_open_while_usage_waits_but_not_for_ever() -> None:
    assert put_off_until_s(DRAFT, HOUR) is None  # it has an hour
    late = HOUR + HOUR_S - TIME_LEFT_S
    assert put_off_until_s(DRAFT, late) == late + PUT_OFF_BY_S
    last = HOUR + HELD_MAX_S - PUT_OFF_BY_S
    closing = replace(DRAFT, finalizes_at_s=last + 60)
    assert put_off_until_s(closing, last) == HOUR + HELD_MAX_S
    assert put_off_until_s(closing, last + 1) is None
    assert put_off_until_s(replace(DRAFT, status="open"), late) is None


async def test_no_second_has_more_calls_than_stripe_takes() -> None:
    clock = ManualClock()
    moments: list[float] = []

    async def sleep(seconds: float) -> None:
        clock.turn(seconds)

    pace = Pace(clock, per_s=100, sleep=sleep)
    for number in range(500):
        if number == 250:
            clock.turn(30)  # what was not used is not saved up
        await pace.turn()
        moments.append(clock.monotonic_s())
    for start in moments:
        assert sum(start <= moment < start + 1 for moment in moments) <= 111
    assert moments[-1] >= 30 + 4.7
