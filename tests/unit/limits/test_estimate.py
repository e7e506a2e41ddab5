"""The estimate of a prompt: careful at first, then close, and never below what was just seen."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.ids import DeploymentId
from appliance.limits.estimate import PromptEstimator

ONE, TWO = DeploymentId("dep_1"), DeploymentId("dep_2")


def test_before_anything_is_known_a_byte_is_a_token() -> None:
    assert PromptEstimator().estimate(ONE, 400) == 401


def test_it_comes_down_to_what_engines_measure() -> None:
    estimator = PromptEstimator()
    for _ in range(200):
        estimator.observe(ONE, 2_000, 500)
    assert 500 <= estimator.estimate(ONE, 2_000) <= 510


def test_it_goes_up_at_once() -> None:
    estimator = PromptEstimator()
    for _ in range(200):
        estimator.observe(ONE, 2_000, 500)
    estimator.observe(ONE, 2_000, 1_900)
    assert estimator.estimate(ONE, 2_000) >= 1_900


def test_sizes_and_deployments_are_learnt_apart() -> None:
    estimator = PromptEstimator()
    for _ in range(200):
        estimator.observe(ONE, 1_000_000, 1_000)
    assert estimator.estimate(ONE, 100) == 101
    assert estimator.estimate(TWO, 1_000_000) == 1_000_001


def test_it_is_never_more_than_the_context() -> None:
    assert PromptEstimator().estimate(ONE, 1_000_000, 4_096) == 4_096


def test_what_engines_could_not_count_teaches_nothing() -> None:
    estimator = PromptEstimator()
    estimator.observe(ONE, 0, 50)
    estimator.observe(ONE, 100, 0)
    assert estimator.estimate(ONE, 100) == 101


@given(st.lists(st.tuples(st.integers(1, 2**25), st.integers(1, 2**20)), min_size=1, max_size=50))
def test_the_same_request_again_is_never_underestimated(seen: list[tuple[int, int]]) -> None:
    estimator = PromptEstimator()
    for body_bytes, tokens in seen:
        estimator.observe(ONE, body_bytes, tokens)
        assert estimator.estimate(ONE, body_bytes) >= tokens


def test_the_likely_figure_is_an_average_that_begins_with_the_first_measurement() -> None:
    estimator = PromptEstimator()
    assert estimator.likely(ONE, 400) == 101  # a token for four bytes, as in prose
    estimator.observe(ONE, 1_000, 500)
    assert estimator.likely(ONE, 1_000) == 501
    for _ in range(60):
        estimator.observe(ONE, 1_000, 200)
        estimator.observe(ONE, 1_000, 240)
    assert 200 <= estimator.likely(ONE, 1_000) <= 240
    assert estimator.likely(TWO, 1_000) == 251  # nothing was measured there
    assert estimator.estimate(ONE, 1_000) >= estimator.likely(ONE, 1_000)
