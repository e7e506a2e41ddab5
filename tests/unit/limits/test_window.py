"""The window against a list of everything that was ever counted."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.limits.window import Window

SPAN = 5
# (slots that pass, amount that is counted then)
HISTORIES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=60)


@given(HISTORIES, st.integers(-20, 20))
def test_total_is_what_the_last_slots_hold(history: list[tuple[int, int]], start: int) -> None:
    window = Window(SPAN, start)
    now, events = start, []
    for passed, amount in history:
        now += passed
        window.advance(now)
        window.add(amount)
        events.append((now, amount))
        assert window.total == sum(a for slot, a in events if slot >= now - SPAN)


@given(HISTORIES)
def test_nothing_is_forgotten_before_it_is_a_whole_span_old(
    history: list[tuple[int, int]],
) -> None:
    """Whatever instants in its slots the amounts fell on: no window of the span holds more."""
    window = Window(SPAN, 0)
    now, events = 0, []
    for passed, amount in history:
        now += passed
        window.advance(now)
        window.add(amount)
        events.append((now, amount))
        # Now is somewhere in slot `now`; an amount in slot s is younger than the span at the
        # latest instant of s, if s + 1 > now - SPAN.
        assert window.total >= sum(a for slot, a in events if slot + 1 > now - SPAN)


@given(HISTORIES, st.integers(0, 300))
def test_free_at_is_when_that_much_has_gone_and_not_a_slot_sooner(
    history: list[tuple[int, int]], amount: int
) -> None:
    window = Window(SPAN, 0)
    now = 0
    for passed, counted in history:
        now += passed
        window.advance(now)
        window.add(counted)
    before = window.total
    slot = window.free_at(amount)
    if slot is None:
        assert amount > before
        return
    if slot > now:
        window.advance(slot - 1)
        assert before - window.total < amount
    window.advance(slot)
    assert before - window.total >= amount


@given(HISTORIES)
def test_empty_at_is_when_all_has_gone(history: list[tuple[int, int]]) -> None:
    window = Window(SPAN, 0)
    now = 0
    for passed, counted in history:
        now += passed
        window.advance(now)
        window.add(counted)
    slot = window.empty_at
    if slot > now:
        window.advance(slot - 1)
        assert window.total > 0
    window.advance(slot)
    assert window.total == 0


def test_an_amount_can_be_taken_back_from_its_slot() -> None:
    window = Window(SPAN, 10)
    window.add(7)
    window.advance(12)
    window.add(3)
    window.add_at(10, -7)
    assert window.total == 3
    window.advance(17)
    assert window.total == 3
    window.advance(18)
    assert window.total == 0


def test_what_has_left_the_window_cannot_be_taken_back() -> None:
    window = Window(SPAN, 0)
    window.add(7)
    window.advance(6)
    window.add_at(0, -7)
    assert window.total == 0


def test_amounts_of_before_the_clock_began_are_counted_and_forgotten() -> None:
    window = Window(SPAN, 1)
    window.add_at(-3, 4)
    window.add_at(-9, 100)
    assert window.total == 4
    window.advance(2)
    assert window.total == 4
    window.advance(3)
    assert window.total == 0


def test_a_clock_that_goes_back_changes_nothing() -> None:
    window = Window(SPAN, 10)
    window.add(4)
    window.advance(3)
    assert (window.slot, window.total) == (10, 4)
