"""What a reservation holds, what a refusal says, and what is left when all is over."""

import pytest

from appliance.domain.limits import Layer, LayerLimits, Limits
from appliance.limits.memory import MemoryLimitStore, Spent, Used
from appliance.limits.reservation import Dimension, LimitStore, Refusal, Reservation

NOW = 1_000.0


def layers(**key: int) -> tuple[LayerLimits, ...]:
    return (LayerLimits(Layer.KEY, "key_1", Limits(**key)),)


def admitted(answer: Reservation | Refusal) -> Reservation:
    assert isinstance(answer, Reservation), answer
    return answer


def refused(answer: Reservation | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), answer
    return answer


@pytest.fixture
def store() -> MemoryLimitStore:
    return MemoryLimitStore()


def test_it_is_a_limit_store(store: MemoryLimitStore) -> None:
    contract: LimitStore = store
    assert contract.reserve((), 10, NOW)


def test_without_limits_everything_passes_and_no_gauge_is_shown(store: MemoryLimitStore) -> None:
    reservation = admitted(store.reserve((), 10**9, NOW))
    store.settle(reservation, 10**9, NOW)
    assert (reservation.requests_gauge, reservation.tokens_gauge) == (None, None)
    assert len(store) == 0


def test_requests_per_minute(store: MemoryLimitStore) -> None:
    for n in range(3):
        gauge = admitted(store.reserve(layers(requests_per_min=3), 5, NOW + n)).requests_gauge
        assert gauge is not None
        assert (gauge.limit, gauge.remaining) == (3, 2 - n)
    refusal = refused(store.reserve(layers(requests_per_min=3), 5, NOW + 10))
    assert (refusal.layer, refusal.dimension, refusal.limit) == (
        Layer.KEY,
        Dimension.REQUESTS_PER_MIN,
        3,
    )
    # Just before the wait is over it is still refused; then the first request has left the window.
    early = NOW + 10 + refusal.retry_after_s - 0.001
    refused(store.reserve(layers(requests_per_min=3), 5, early))
    admitted(store.reserve(layers(requests_per_min=3), 5, NOW + 10 + refusal.retry_after_s))
    assert refusal.retry_after_s == 50


def test_tokens_are_held_then_settled_with_the_true_count(store: MemoryLimitStore) -> None:
    limits = layers(tokens_per_min=1_000)
    first = admitted(store.reserve(limits, 800, NOW))
    assert store.used("key_1", NOW) == Used(1, 800, 800, 1)
    refused(store.reserve(limits, 300, NOW))
    store.settle(first, 120, NOW + 2)
    assert store.used("key_1", NOW + 2) == Used(1, 120, 120, 0)
    second = admitted(store.reserve(limits, 300, NOW + 2))
    assert second.tokens_gauge is not None
    assert (second.tokens_gauge.limit, second.tokens_gauge.remaining) == (1_000, 580)


def test_settled_tokens_count_for_a_minute_after_they_were_served(store: MemoryLimitStore) -> None:
    limits = layers(tokens_per_min=1_000)
    stream = admitted(store.reserve(limits, 1_000, NOW))
    store.settle(stream, 1_000, NOW + 500)
    refusal = refused(store.reserve(limits, 10, NOW + 501))
    assert refusal.retry_after_s == pytest.approx(59)
    refused(store.reserve(limits, 10, NOW + 559.9))
    admitted(store.reserve(limits, 10, NOW + 501 + refusal.retry_after_s))


def test_more_than_was_held_puts_the_window_over_its_limit(store: MemoryLimitStore) -> None:
    limits = layers(tokens_per_min=1_000)
    store.settle(admitted(store.reserve(limits, 10, NOW)), 1_700, NOW)
    refusal = refused(store.reserve(limits, 1, NOW + 1))
    assert refusal.tokens_gauge is not None
    assert refusal.tokens_gauge.remaining == 0
    admitted(store.reserve(limits, 1, NOW + 1 + refusal.retry_after_s))


def test_a_request_larger_than_the_limit_passes_alone(store: MemoryLimitStore) -> None:
    limits = layers(tokens_per_min=1_000)
    large = admitted(store.reserve(limits, 9_000, NOW))
    assert large.tokens_gauge is not None
    assert large.tokens_gauge.remaining == 0
    refused(store.reserve(limits, 1, NOW))
    store.settle(large, 1, NOW)
    refused(store.reserve(limits, 9_000, NOW))
    admitted(store.reserve(limits, 999, NOW))


def test_a_limit_of_nothing_lets_nothing_pass(store: MemoryLimitStore) -> None:
    for dimension in Dimension:
        refusal = refused(store.reserve(layers(**{dimension.value: 0}), 1, NOW))
        assert refusal.dimension is dimension


def test_requests_estimated_as_nothing_do_not_pass_without_end(store: MemoryLimitStore) -> None:
    for _ in range(5):
        admitted(store.reserve(layers(tokens_per_min=5), 0, NOW))
    refused(store.reserve(layers(tokens_per_min=5), 0, NOW))


def test_a_whole_window_is_the_longest_wait_and_long_enough(store: MemoryLimitStore) -> None:
    """Whatever the instant in its second: clients ignore a Retry-After above 60."""
    for fraction in (0.0, 0.3, 0.999):
        for limits in (layers(requests_per_min=1), layers(tokens_per_min=5)):
            store = MemoryLimitStore()
            store.settle(admitted(store.reserve(limits, 5, NOW + fraction)), 5, NOW + fraction)
            refusal = refused(store.reserve(limits, 5, NOW + fraction))
            assert refusal.retry_after_s == 60
            refused(store.reserve(limits, 5, NOW + fraction + 59.99))
            admitted(store.reserve(limits, 5, NOW + fraction + 60.001))


def test_a_release_a_window_later_takes_nothing_back_twice(store: MemoryLimitStore) -> None:
    limits = layers(requests_per_min=2)
    held = admitted(store.reserve(limits, 1, NOW + 0.5))
    assert store.used("key_1", NOW + 60.6).requests_per_min == 0
    store.release(held, NOW + 60.7)
    assert store.used("key_1", NOW + 60.8).requests_per_min == 0


def test_concurrency(store: MemoryLimitStore) -> None:
    limits = layers(concurrency=2)
    first = admitted(store.reserve(limits, 5, NOW))
    second = admitted(store.reserve(limits, 5, NOW))
    refusal = refused(store.reserve(limits, 5, NOW))
    assert refusal.dimension is Dimension.CONCURRENCY
    assert refusal.retry_after_s > 0
    store.settle(first, 5, NOW)
    third = admitted(store.reserve(limits, 5, NOW))
    store.release(second, NOW)
    store.release(third, NOW)
    assert store.used("key_1", NOW).concurrency == 0


def test_the_day_refuses_when_the_minute_would_not(store: MemoryLimitStore) -> None:
    limits = layers(tokens_per_min=1_000, tokens_per_day=1_500)
    store.settle(admitted(store.reserve(limits, 1_000, NOW)), 1_000, NOW)
    store.settle(admitted(store.reserve(limits, 500, NOW + 70)), 500, NOW + 70)
    refusal = refused(store.reserve(limits, 100, NOW + 140))
    assert refusal.dimension is Dimension.TOKENS_PER_DAY
    assert 86_000 < refusal.retry_after_s <= 86_400
    refused(store.reserve(limits, 100, NOW + 86_000))
    admitted(store.reserve(limits, 100, NOW + 140 + refusal.retry_after_s))


def test_of_several_refusals_the_longest_is_told(store: MemoryLimitStore) -> None:
    both = (
        LayerLimits(Layer.TENANT, "ten_1", Limits(tokens_per_day=100)),
        LayerLimits(Layer.KEY, "key_1", Limits(requests_per_min=1)),
    )
    store.settle(admitted(store.reserve(both, 100, NOW)), 100, NOW)
    refusal = refused(store.reserve(both, 100, NOW))
    assert (refusal.layer, refusal.dimension) == (Layer.TENANT, Dimension.TOKENS_PER_DAY)


def test_the_gauges_show_the_tightest_layer(store: MemoryLimitStore) -> None:
    three = (
        LayerLimits(Layer.GLOBAL, "global", Limits(requests_per_min=100, tokens_per_min=10_000)),
        LayerLimits(Layer.TENANT, "ten_1", Limits(requests_per_min=5, tokens_per_day=700)),
        LayerLimits(Layer.KEY, "key_1", Limits(requests_per_min=50, tokens_per_min=800)),
    )
    reservation = admitted(store.reserve(three, 100, NOW))
    requests, tokens = reservation.requests_gauge, reservation.tokens_gauge
    assert requests is not None
    assert tokens is not None
    assert (requests.limit, requests.remaining) == (5, 4)
    assert (tokens.limit, tokens.remaining) == (700, 600)
    assert tokens.reset_s == 86_400
    assert requests.reset_s == 60


def test_a_refusal_leaves_no_trace(store: MemoryLimitStore) -> None:
    both = (
        LayerLimits(Layer.TENANT, "ten_1", Limits(requests_per_min=100, tokens_per_min=10_000)),
        LayerLimits(Layer.KEY, "key_1", Limits(tokens_per_min=100)),
    )
    held = admitted(store.reserve(both, 100, NOW))
    before = store.used("ten_1", NOW), store.used("key_1", NOW)
    refused(store.reserve(both, 50, NOW))
    assert (store.used("ten_1", NOW), store.used("key_1", NOW)) == before
    store.release(held, NOW)
    assert store.used("ten_1", NOW) == store.used("key_1", NOW) == Used()


def test_only_the_first_end_of_a_reservation_counts(store: MemoryLimitStore) -> None:
    limits = layers(tokens_per_min=1_000)
    settled = admitted(store.reserve(limits, 100, NOW))
    store.settle(settled, 60, NOW)
    store.settle(settled, 60, NOW)
    store.release(settled, NOW)
    released = admitted(store.reserve(limits, 100, NOW))
    store.release(released, NOW)
    store.release(released, NOW)
    store.settle(released, 100, NOW)
    assert store.used("key_1", NOW) == Used(1, 60, 60, 0)


def test_a_changed_limit_counts_at_once_with_what_was_used(store: MemoryLimitStore) -> None:
    store.settle(admitted(store.reserve(layers(requests_per_min=60), 600, NOW)), 600, NOW)
    refused(store.reserve(layers(tokens_per_min=500), 1, NOW + 1))
    admitted(store.reserve(layers(tokens_per_min=2_000), 1_000, NOW + 1))
    refused(store.reserve(layers(tokens_per_min=2_000), 1_000, NOW + 1))
    admitted(store.reserve(layers(concurrency=5), 10**6, NOW + 1))


def test_a_retry_after_running_requests_is_a_forecast(store: MemoryLimitStore) -> None:
    """Requests here use a tenth of what they hold and take 2 s: so it is told, not a minute."""
    limits = layers(tokens_per_min=1_000)
    for n in range(60):
        at = NOW + 100 * n
        store.settle(admitted(store.reserve(limits, 900, at)), 90, at + 2)
    at = NOW + 10_000
    admitted(store.reserve(limits, 900, at))
    refusal = refused(store.reserve(limits, 300, at))
    assert refusal.retry_after_s == pytest.approx(2, abs=0.2)


def test_a_restart_with_the_ledgers_sums_gives_no_new_quota(store: MemoryLimitStore) -> None:
    limits = layers(requests_per_min=10, tokens_per_min=1_000, tokens_per_day=5_000)
    store.seed("key_1", [Spent(30, 4, 900), Spent(3_600, 50, 3_800), Spent(90_000, 9, 9_999)], 7.0)
    assert store.used("key_1", 7.0) == Used(4, 900, 4_700, 0)
    refusal = refused(store.reserve(limits, 200, 7.0))
    assert refusal.dimension is Dimension.TOKENS_PER_MIN
    assert 30 <= refusal.retry_after_s <= 31
    admitted(store.reserve(limits, 300, 7.0 + refusal.retry_after_s))
    assert refused(store.reserve(limits, 300, 50.0)).dimension is Dimension.TOKENS_PER_DAY


def test_idle_scopes_are_forgotten_by_themselves(store: MemoryLimitStore) -> None:
    open_ones = []
    for n in range(5_000):
        scope = (LayerLimits(Layer.KEY, f"key_{n}", Limits(requests_per_min=5)),)
        reservation = admitted(store.reserve(scope, 1, NOW + n * 100))
        if n % 1_000:
            store.settle(reservation, 1, NOW + n * 100)
        else:
            open_ones.append(n)
    # A day is 864 of these steps. The five that are open stay, and are not given a fresh quota.
    assert len(store) < 3_000
    for n in open_ones:
        assert store.used(f"key_{n}", NOW + 500_000).concurrency == 1


def test_new_scopes_of_one_request_survive_the_sweep_that_they_cause(
    store: MemoryLimitStore,
) -> None:
    for n in range(1_023):
        one = (LayerLimits(Layer.KEY, f"old_{n}", Limits(requests_per_min=5)),)
        store.release(admitted(store.reserve(one, 1, NOW)), NOW)
    both = (
        LayerLimits(Layer.TENANT, "ten_1", Limits(concurrency=1)),
        LayerLimits(Layer.KEY, "key_1", Limits(concurrency=1)),
    )
    admitted(store.reserve(both, 1, NOW + 5))
    assert len(store) == 2
    refused(store.reserve(both, 1, NOW + 5))


def test_what_was_not_held_is_counted_afterwards(store: MemoryLimitStore) -> None:
    limited = layers(tokens_per_min=100)
    store.count(limited, 150, NOW)
    assert store.used("key_1", NOW) == Used(1, 150, 150, 0)
    refused(store.reserve(limited, 5, NOW + 1))
    admitted(store.reserve(limited, 5, NOW + 61))
