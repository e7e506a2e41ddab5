"""How figures went by the minute: what the appliance kept, and what was seen since."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.wire.stream import HistoryPoint, HistorySeries
from console.trends import Trends

T0 = 1_764_000_000 // 60 * 60


def past(*points: tuple[int, float | None], of: str = "a") -> HistorySeries:
    told = [HistoryPoint(T0 + 60 * at, mean, mean) for at, mean in points]
    return HistorySeries("output_tokens_per_s", of, "tokens/s", 60, told)


def test_a_cell_is_the_mean_of_its_minute() -> None:
    trends = Trends(3)
    assert trends.note(T0, {"a": 2.0})
    assert not trends.note(T0 + 59, {"a": 4.0})
    assert trends.of("a") == [None, None, 3.0]
    assert trends.note(T0 + 60, {"a": 8.0})
    assert trends.of("a") == [None, 3.0, 8.0]
    assert trends.of("unknown") == [None, None, None]


def test_what_the_appliance_kept_stands_before_what_was_seen() -> None:
    trends = Trends(4)
    trends.note(T0, {"a": 10.0})
    trends.seed([past((-9, 7.0), (-3, 1.0), (-2, None), (-1, 3.0), (0, 99.0))])
    assert trends.of("a") == [1.0, None, 3.0, 10.0]


def test_it_may_come_before_anything_was_seen() -> None:
    trends = Trends(2)
    trends.seed([past((-1, 3.0), (0, 5.0))])
    trends.note(T0 + 5, {"a": None})
    assert trends.of("a") == [3.0, 5.0]


def test_a_minute_that_nobody_watched_is_a_gap_and_who_is_gone_is_forgotten() -> None:
    trends = Trends(3)
    trends.note(T0, {"a": 1.0, "b": 1.0})
    trends.note(T0 + 120, {"a": 2.0})
    assert trends.of("a") == [1.0, None, 2.0]
    assert trends.of("b") == [None, None, None]


@given(st.lists(st.tuples(st.integers(0, 40), st.one_of(st.none(), st.floats(0, 1e6))), min_size=1))
def test_it_keeps_as_many_minutes_as_it_shows(seen: list[tuple[int, float | None]]) -> None:
    trends = Trends(5)
    for minute, value in seen:
        trends.note(T0 + 60 * minute, {"a": value})
        shown = trends.of("a")
        assert len(shown) == 5
        assert value is None or shown[-1] is not None
    newest = seen[-1][0]
    values = [value for minute, value in seen if minute == newest and value is not None]
    if values and all(minute <= newest for minute, _ in seen):
        assert abs((trends.of("a")[-1] or 0.0) - sum(values) / len(values)) < 1e-3
