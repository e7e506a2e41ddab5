"""Tokens a second, from a counter that is looked at now and then."""

from hypothesis import given
from hypothesis import strategies as st

from agent.output_rate import OutputRate


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = OutputRate()
    rate.look(100, 10.0)
    assert rate.per_s is None  # one look says nothing
    rate.look(300, 12.0)
    assert rate.per_s == 100.0
    rate.look(300, 14.0)
    assert rate.per_s == 0.0


def test_looks_close_together_are_one() -> None:
    rate = OutputRate()
    rate.look(0, 0.0)
    for tenth in range(1, 15):
        rate.look(tenth, tenth / 10)
    assert rate.per_s is None
    rate.look(30, 2.0)
    assert rate.per_s == 15.0


def test_an_engine_that_began_anew_or_was_not_looked_at_has_no_rate() -> None:
    rate = OutputRate()
    rate.look(500, 0.0)
    rate.look(700, 2.0)
    assert rate.per_s == 100.0
    rate.look(3, 4.0)
    assert rate.per_s is None
    rate.look(23, 6.0)
    assert rate.per_s == 10.0
    rate.look(9_000, 60.0)
    assert rate.per_s is None


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0.001, 30)), max_size=40))
def test_it_is_never_below_nothing(looks: list[tuple[int, float]]) -> None:
    rate, now_s = OutputRate(), 0.0
    for tokens, passed_s in looks:
        now_s += passed_s
        rate.look(tokens, now_s)
        assert rate.per_s is None or rate.per_s >= 0
