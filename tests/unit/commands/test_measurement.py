"""The statistics of `cic bench`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.commands.measurement import Sample, Spread, gaps, quantile, report, spread


def answered(*token_times_s: float, tokens: int = 0, total_s: float = 1.0) -> Sample:
    return Sample(None, token_times_s, tokens, total_s)


def test_times_and_rates_are_of_the_answered_requests() -> None:
    samples = [
        answered(0.1, 0.15, 0.25, tokens=3, total_s=0.3),
        answered(0.3, 0.35, tokens=2, total_s=0.4),
        Sample("overloaded", (9.0, 19.0), 99, 20.0),
    ]
    found = report(samples, elapsed_s=2.0)
    assert (found.requests, found.answered, found.errors) == (3, 2, {"overloaded": 1})
    assert (found.output_tokens, found.output_tokens_per_s, found.requests_per_s) == (5, 2.5, 1.0)
    assert found.first_token == Spread(100.0, 300.0, 300.0)
    assert found.between_tokens == Spread(50.0, 100.0, 100.0)
    assert found.total == Spread(300.0, 400.0, 400.0)


def test_errors_are_counted_by_code_the_frequent_ones_first() -> None:
    samples = [Sample(code, (), 0, 0.1) for code in ("a", "b", "b")]
    found = report(samples, elapsed_s=1.0)
    assert list(found.errors.items()) == [("b", 2), ("a", 1)]
    assert found.answered == 0
    assert found.first_token == found.total == Spread(0.0, 0.0, 0.0)


def test_no_time_gives_no_rate() -> None:
    assert report([answered(tokens=5)], elapsed_s=0.0).output_tokens_per_s == 0.0


@pytest.mark.parametrize(
    ("q", "expected"), [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100), (0.001, 1)]
)
def test_quantiles_are_by_nearest_rank(q: float, expected: int) -> None:
    assert quantile([float(n) for n in range(1, 101)], q) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_a_measured_value_with_its_share_below(values: list[float], q: float) -> None:
    found = quantile(sorted(values), q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values) - 1e-9


@given(st.lists(st.floats(0, 1e3)))
def test_gaps_add_up_to_the_whole_span(times_s: list[float]) -> None:
    ordered = sorted(times_s)
    between = gaps(ordered)
    assert len(between) == max(0, len(ordered) - 1)
    assert sum(between) == pytest.approx(ordered[-1] - ordered[0] if ordered else 0)


def test_a_spread_is_in_milliseconds() -> None:
    assert spread([0.0012345]) == Spread(1.23, 1.23, 1.23)
