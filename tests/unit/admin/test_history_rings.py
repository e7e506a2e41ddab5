"""Figures of the past: means and peaks by steps of time, gaps, and what survives a restart."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from appliance.admin.history import RINGS, SERIES_MAX, History, SavedRing, Span

NAME = ("queued", "site", "")
T0 = 1_764_000_000 // 3_600 * 3_600


def means(history: History, span: Span, now_s: int) -> list[tuple[int, float | None]]:
    found = history.series("queued", "", span, now_s)
    return [(point.at_s - T0, point.mean) for each in found for point in each.points]


def test_a_step_has_the_mean_and_the_largest_of_its_samples() -> None:
    history = History()
    for at, value in ((0, 1.0), (3, 3.0), (9, 2.0), (10, 8.0)):
        history.take(T0 + at, {NAME: value})
    (series,) = history.series("", "", "1h", T0 + 10)
    assert [(p.at_s - T0, p.mean, p.largest) for p in series.points] == [
        (0, 2.0, 3.0),
        (10, 8.0, 8.0),
    ]
    assert (series.unit, series.step_s, series.of) == ("requests", 10, "")


def test_a_gap_is_left_out_and_old_points_fall_off() -> None:
    history = History()
    history.take(T0, {NAME: 1.0})
    history.take(T0 + 100, {NAME: None})
    history.take(T0 + 200, {NAME: 2.0})
    assert means(history, "1h", T0 + 200) == [(0, 1.0), (200, 2.0)]
    assert means(history, "1h", T0 + 3_600) == [(200, 2.0)]
    assert means(history, "1h", T0 + 90_000) == []
    assert means(history, "30d", T0 + 90_000) == [(0, 1.5)]


def test_a_clock_that_is_set_back_a_little_loses_nothing_and_far_begins_anew() -> None:
    history = History()
    history.take(T0 + 100, {NAME: 1.0})
    history.take(T0 + 50, {NAME: 9.0})
    assert means(history, "1h", T0 + 100) == [(100, 1.0)]
    history.take(T0 - 10_000_000, {NAME: 2.0})
    assert means(history, "1h", T0 - 10_000_000)[-1][1] == 2.0


def test_only_the_newest_steps_where_so_many_are_asked_for() -> None:
    history = History()
    for at in range(0, 300, 10):
        history.take(T0 + at, {NAME: float(at)})
    (series,) = history.series("", "", "1h", T0 + 295, newest=2)
    assert [point.at_s - T0 for point in series.points] == [280, 290]
    assert history.series("", "", "1h", T0 + 400, newest=2) == []


@given(st.lists(st.tuples(st.integers(0, 30_000), st.floats(0, 100, width=32)), max_size=60))
def test_it_is_what_a_list_of_all_samples_says(samples: list[tuple[int, float]]) -> None:
    history = History()
    samples = sorted(samples, key=lambda sample: sample[0])
    for at, value in samples:
        history.take(T0 + at, {NAME: value})
    now_s = T0 + 30_000
    for span, (step_s, count) in RINGS.items():
        by_step: dict[int, list[float]] = {}
        for at, value in samples:
            if at // step_s > 30_000 // step_s - count:
                by_step.setdefault(at // step_s * step_s, []).append(value)
        found = means(history, span, now_s)
        assert [at for at, _ in found] == sorted(by_step)
        for at, mean in found:
            assert mean is not None
            assert abs(mean - sum(by_step[at]) / len(by_step[at])) < 0.02


def test_what_was_saved_is_there_again_and_what_does_not_fit_is_left_out() -> None:
    history = History()
    history.take(T0, {NAME: 4.0, ("running", "deployment", "m"): 2.0})
    encoded = msgspec.msgpack.encode(history.saved())
    saved = msgspec.msgpack.decode(encoded, type=dict[str, dict[Span, SavedRing]])
    again = History()
    again.restore({**saved, "bad": {}, "queued\0site\0x": {"1h": SavedRing(5, b"123", b"")}})
    assert means(again, "24h", T0 + 60) == [(0, 4.0)]
    assert [each.of for each in again.series("", "deployment", "1h", T0)] == ["m"]
    assert again.series("", "deployment/other", "1h", T0) == []


def test_there_are_never_more_series_than_fit() -> None:
    history = History()
    for number in range(SERIES_MAX + 10):
        history.take(T0 + number, {("queued", "deployment", str(number)): 1.0})
    names = {each.of for each in history.series("", "deployment", "24h", T0 + SERIES_MAX)}
    assert len(history.saved()) == SERIES_MAX
    assert "0" not in names
    assert str(SERIES_MAX + 9) in names
