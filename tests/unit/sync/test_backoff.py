"""The wait before the next attempt: never above its ceiling, spread over all of it."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.sync.backoff import interval_ms, wait_ms
from tests.fakes.entropy import SeededEntropy


@given(st.integers(1, 10_000), st.integers(1, 10**6), st.integers(1, 10**7), st.integers(0, 99))
def test_the_wait_is_below_a_ceiling_that_doubles(
    failures: int, first: int, longest: int, seed: int
) -> None:
    found = wait_ms(failures, first, longest, SeededEntropy(seed))
    assert 0 <= found <= min(longest, first * 2 ** min(failures - 1, 40))


def test_the_extremes_of_the_draw_are_the_extremes_of_the_wait() -> None:
    assert wait_ms(3, 100, 10_000, lambda n: b"\0" * n) == 0
    assert wait_ms(3, 100, 10_000, lambda n: b"\xff" * n) == 400
    assert wait_ms(30, 100, 10_000, lambda n: b"\xff" * n) == 10_000
    assert wait_ms(0, 100, 10_000, lambda n: b"\xff" * n) == 0


def test_sites_that_failed_together_come_back_spread_out() -> None:
    waits = sorted(wait_ms(6, 1_000, 900_000, SeededEntropy(seed)) for seed in range(400))
    tenths = [sum(w * 10 // 32_001 == part for w in waits) for part in range(10)]
    assert min(tenths) > 20


def test_the_regular_interval_is_up_to_a_tenth_shorter() -> None:
    found = {interval_ms(60_000, SeededEntropy(seed)) for seed in range(200)}
    assert min(found) >= 54_000
    assert max(found) <= 60_000
    assert len(found) > 150
