"""Promised, offered and delivered: the minutes of a reservation."""

from appliance.domain.ids import TenantId
from appliance.scheduler.attainment import MINUTES_KEPT, Attainment, Minute
from appliance.scheduler.lanes import LaneSpec, LaneView

SECOND_NS = 1_000_000_000
SPEC = LaneSpec("rsv_1", TenantId("ten_1"), None, 10, 0)


def view(delivered: int, *, late: float = 0.0, refused: float = 0.0) -> LaneView:
    return LaneView(SPEC, 0.0, 0, late, delivered, delivered, refused)


def test_a_minute_adds_up() -> None:
    attained = Attainment()
    for second in range(0, 61, 10):
        attained.look(view(second * 9, refused=second / 2), 0, second * SECOND_NS)
    (minute,) = attained.minutes
    assert minute == Minute(0, promised=600, offered=570, delivered=540)
    assert minute.attained_percent == 100 * 540 / 570
    assert not attained.slipping, "one minute alone is a wave"


def test_what_is_under_way_counts_when_it_is_made_and_once() -> None:
    attained = Attainment()
    attained.look(view(0), 0, 0)
    attained.look(view(0), 300, 30 * SECOND_NS)
    assert attained.now is not None
    assert attained.now.delivered == 300
    attained.look(view(0), 400, 60 * SECOND_NS)
    attained.look(view(500), 0, 90 * SECOND_NS)
    assert [minute.delivered for minute in attained.minutes] == [400]
    assert attained.now.delivered == 100


def test_who_asks_for_less_is_owed_no_more() -> None:
    assert Minute(0, 600, 100, 100).attained_percent == 100
    assert Minute(0, 600, 0, 0).attained_percent is None
    assert Minute(0, 600, 900, 900).attained_percent == 100
    assert Minute(0, 600, 900, 300).attained_percent == 50


def test_two_bad_minutes_slip_and_a_good_one_ends_it() -> None:
    attained = Attainment()
    delivered = 0
    slipping = []
    for minute, rate in enumerate([10, 5, 5, 10, 10]):
        for second in range(0, 60, 10):
            now_ns = (minute * 60 + second) * SECOND_NS
            attained.look(view(delivered, late=1_000), 0, now_ns)
            delivered += rate * 10
        slipping.append(attained.slipping)
    assert slipping == [False, False, False, True, False]


def test_a_clock_that_is_set_begins_a_minute_anew() -> None:
    attained = Attainment()
    attained.look(view(0), 0, 10 * SECOND_NS)
    attained.look(view(50), 0, 3_600 * SECOND_NS)
    attained.look(view(60), 0, 5 * SECOND_NS)
    assert attained.minutes == ()
    assert attained.now is not None
    assert attained.now.promised == 0


def test_an_hour_is_kept() -> None:
    attained = Attainment()
    for second in range(0, 2 * 3_600, 30):
        attained.look(view(0), 0, second * SECOND_NS)
    assert len(attained.minutes) == MINUTES_KEPT


def test_a_lane_that_is_made_anew_within_a_minute_takes_nothing_away() -> None:
    attained = Attainment()
    attained.look(view(1_000, refused=500), 0, 0)
    attained.look(view(1_100, refused=510), 0, 10 * SECOND_NS)
    attained.look(view(0), 0, 20 * SECOND_NS)
    attained.look(view(30, refused=7), 0, 30 * SECOND_NS)
    assert attained.now is not None
    assert (attained.now.delivered, attained.now.offered) == (130, 147)
