"""The speed of an engine from its counters."""

from agent.capacity import WINDOW_S, Capacity, Speed
from agent.engines.kind import Load


def load(requests: int, generated: int, prefill: tuple[float, float] | None = None) -> Load:
    return Load(requests, (float(generated),), 0, generated, prefill=prefill)


def told(slots: int, speed: Speed, loads: list[Load | None], step_s: float = 2.0) -> list[Speed]:
    capacity = Capacity(slots, speed)
    seen = [capacity.look(one, number * step_s) for number, one in enumerate(loads)]
    return [speed for speed in seen if speed is not None]


def test_full_slots_move_the_figure_towards_what_is_seen() -> None:
    # 50 tokens/s over minutes, where the warm-up said 100.
    speeds = told(2, Speed(100.0, 7.0), [load(2, 100 * n) for n in range(120)])
    figures = [speed.tokens_per_s for speed in speeds]
    assert figures == sorted(figures, key=lambda figure: -(figure or 0))
    assert figures[-1] is not None
    assert 50 <= figures[-1] < 60
    assert all(speed.prefill_tokens_per_s == 7.0 for speed in speeds)


def test_idle_slots_lower_nothing_but_show_that_it_is_faster() -> None:
    assert told(4, Speed(100.0, None), [load(1, 20 * n) for n in range(60)]) == []
    (speed,) = told(4, Speed(100.0, None), [load(1, 400 * n) for n in range(60)])
    assert speed.tokens_per_s == 200.0


def test_idle_time_belongs_to_no_window() -> None:
    loads: list[Load | None] = [load(2, 200 * n) for n in range(4)]
    loads += [load(0, 600)] * 50 + [load(2, 600 + 200 * n) for n in range(4)]
    assert told(2, Speed(100.0, None), loads) == []


def test_nothing_measured_is_learnt_from_full_slots_only() -> None:
    assert told(2, Speed(None, None), [load(1, 100 * n) for n in range(20)]) == []
    first = told(2, Speed(None, None), [load(2, 100 * n) for n in range(20)])[0]
    assert first.tokens_per_s == 50.0


def test_prefill_is_taken_from_the_engines_own_seconds() -> None:
    loads: list[Load | None] = [load(1, 200 * n, (1000.0 * n, 0.5 * n)) for n in range(60)]
    speeds = told(2, Speed(100.0, 1_000.0), loads)
    assert speeds
    last = speeds[-1].prefill_tokens_per_s
    assert last is not None
    assert 1_700 < last <= 2_000


def test_small_changes_and_short_looks_tell_nothing() -> None:
    assert told(2, Speed(100.0, None), [load(2, 210 * n) for n in range(60)]) == []
    assert told(2, Speed(100.0, None), [load(2, 20 * n) for n in range(3)]) == []
    assert WINDOW_S > 3 * 2.0


def test_counters_that_began_anew_and_silence_begin_a_new_window() -> None:
    loads: list[Load | None] = [load(2, 200 * n) for n in range(4)]
    loads += [load(2, 0), None, load(2, 200), load(2, 600)]
    assert told(2, Speed(100.0, None), loads) == []
