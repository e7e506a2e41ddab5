"""The window against a list of everything that was ever counted."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.limits.window import Window

SPAN = 5
# (slots that pass, amount that is counted then)
HISTORIES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=60)
# (seconds that pass, amount that is counted then)
INSTANTS = st.lists(st.tuples(st.floats(0, 9), st.integers(1, 50)), max_size=60)
SOON_S = 1e-6  # what floats leave of an instant


@given(HISTORIES, st.integers(-20, 20))
def test_total_is_what_the_last_slots_hold(history: list[tuple[int, int]], start: int) -> None:
    window = Window(SPAN, 1, start)
    now, events = start, []
    for passed, amount in history:
        now += passed
        window.advance(now)
        window.add(amount, now)
        events.append((now, amount))
        assert window.total == sum(a for slot, a in events if slot >= now - SPAN)


@given(HISTORIES)
def test_nothing_is_forgotten_before_it_is_a_whole_span_old(
    history: list[tuple[int, int]],
) -> None:
    """Whatever instants in its slots the amounts fell on: no window of the span holds more."""
    window = Window(SPAN, 1, 0)
    now, events = 0, []
    for passed, amount in history:
        now += passed
        window.advance(now)
        window.add(amount, now)
        events.append((now, amount))
        # Now is somewhere in slot `now`; an amount in slot s is younger than the span at the
        # latest instant of s, if s + 1 > now - SPAN.
        assert window.total >= sum(a for slot, a in events if slot + 1 > now - SPAN)


@given(INSTANTS, st.integers(0, 300))
def test_free_in_is_when_that_much_has_gone_and_not_sooner(
    history: list[tuple[float, int]], amount: int
) -> None:
    window, now_s = filled(history)
    before = window.total
    wait_s = window.free_in_s(amount, now_s)
    if wait_s is None:
        assert amount > before
        return
    assert wait_s <= SPAN
    if wait_s > SOON_S:
        pass_to(window, now_s + wait_s - SOON_S)
        assert before - window.total < amount
    pass_to(window, now_s + wait_s + SOON_S)
    assert before - window.total >= amount


@given(INSTANTS)
def test_empty_in_is_when_all_has_gone(history: list[tuple[float, int]]) -> None:
    window, now_s = filled(history)
    wait_s = window.empty_in_s(now_s)
    if wait_s > SOON_S:
        pass_to(window, now_s + wait_s - SOON_S)
        assert window.total > 0
    pass_to(window, now_s + wait_s + SOON_S)
    assert window.total == 0


@given(INSTANTS)
def test_nothing_is_forgotten_before_its_last_instant(history: list[tuple[float, int]]) -> None:
    window, now_s, events = Window(SPAN, 1, 0), 0.0, []
    for passed_s, amount in history:
        now_s += passed_s
        pass_to(window, now_s)
        window.add(amount, now_s)
        events.append((now_s, amount))
        assert window.total >= sum(a for at_s, a in events if now_s - at_s < SPAN)


def filled(history: list[tuple[float, int]]) -> tuple[Window, float]:
    window, now_s = Window(SPAN, 1, 0), 0.0
    for passed_s, amount in history:
        now_s += passed_s
        pass_to(window, now_s)
        window.add(amount, now_s)
    return window, now_s


def pass_to(window: Window, now_s: float) -> None:
    window.advance(int(now_s))
    window.forget(now_s)


def test_an_amount_can_be_taken_back_from_its_slot() -> None:
    window = Window(SPAN, 1, 10)
    window.add(7, window.slot)
    window.advance(12)
    window.add(3, window.slot)
    window.add_at(10, -7, 12)
    assert window.total == 3
    window.advance(17)
    assert window.total == 3
    window.advance(18)
    assert window.total == 0


def test_what_has_left_the_window_cannot_be_taken_back() -> None:
    window = Window(SPAN, 1, 0)
    window.add(7, window.slot)
    window.advance(6)
    window.add_at(0, -7, 6)
    assert window.total == 0


def test_amounts_of_before_the_clock_began_are_counted_and_forgotten() -> None:
    window = Window(SPAN, 1, 1)
    window.add_at(-3, 4, 1)
    window.add_at(-9, 100, 1)
    assert window.total == 4
    window.advance(2)
    assert window.total == 4
    window.advance(3)
    assert window.total == 0


def test_a_clock_that_goes_back_changes_nothing() -> None:
    window = Window(SPAN, 1, 10)
    window.add(4, window.slot)
    window.advance(3)
    assert (window.slot, window.total) == (10, 4)
