"""Rates and percentiles from counters."""

from appliance.admin.pace import NO_RATES, Counted, Pace

BOUNDS_S = (0.1, 0.5, 1.0)


def test_one_sample_says_nothing() -> None:
    pace = Pace(BOUNDS_S)
    assert pace.of("a") == NO_RATES
    pace.take(0.0, {"a": Counted(requests=5)})
    assert pace.of("a") == NO_RATES


def test_a_rate_is_over_the_last_five_seconds() -> None:
    pace = Pace(BOUNDS_S)
    for second in range(21):
        tokens = 100 * second if second < 10 else 1_000 + 10 * (second - 10)
        pace.take(float(second), {"a": Counted(output_tokens=tokens)})
    assert pace.of("a").output_tokens_per_s == 10.0


def test_who_was_not_counted_before_began_at_zero() -> None:
    pace = Pace(BOUNDS_S)
    pace.take(0.0, {})
    pace.take(2.0, {"new": Counted(requests=4)})
    assert pace.of("new").requests_per_s == 2.0
    assert pace.of("unheard").requests_per_s == 0.0


def test_percentiles_lie_inside_their_band_and_forget_after_a_minute() -> None:
    pace = Pace(BOUNDS_S)
    pace.take(0.0, {"a": Counted(first_token=(100, 0, 0, 0))})
    pace.take(10.0, {"a": Counted(first_token=(110, 10, 0, 0))})
    rates = pace.of("a")
    assert rates.first_token_p50_ms == 100.0
    assert rates.first_token_p95_ms == 460.0
    for second in range(11, 90):
        pace.take(float(second), {"a": Counted(first_token=(110, 10, 0, 0))})
    assert pace.of("a").first_token_p95_ms is None


def test_what_is_beyond_every_band_is_at_least_the_last() -> None:
    pace = Pace(BOUNDS_S)
    pace.take(0.0, {})
    pace.take(1.0, {"a": Counted(first_token=(0, 0, 0, 3))})
    assert pace.of("a").first_token_p95_ms == 1_000.0


def test_failures_are_told_a_minute() -> None:
    pace = Pace(BOUNDS_S)
    for second in range(61):
        pace.take(float(second), {"a": Counted(failures=second // 30)})
    assert pace.of("a").failures_per_min == 2.0


def test_who_did_nothing_for_a_minute_stands_still_and_needs_no_sums() -> None:
    pace, same = Pace(BOUNDS_S), Counted(requests=9, output_tokens=9, first_token=(9, 0, 0, 0))
    for second in range(3):
        pace.take(float(second), {"idle": same, "busy": Counted(requests=second)})
    idle = pace.of("idle")
    assert (idle.requests_per_s, idle.output_tokens_per_s, idle.failures_per_min) == (0.0, 0.0, 0.0)
    assert idle.first_token_p95_ms is None
    assert pace.of("busy").requests_per_s == 1.0


def test_percentiles_can_be_left_out() -> None:
    pace = Pace(BOUNDS_S)
    pace.take(0.0, {})
    pace.take(2.0, {"a": Counted(requests=4, first_token=(4, 0, 0, 0))})
    assert pace.of("a").first_token_p95_ms is not None
    rates = pace.of("a", percentiles=False)
    assert (rates.requests_per_s, rates.first_token_p95_ms) == (2.0, None)
