"""A site's clock set back a year, ahead a year and right again; a leap day, hours that come twice.

Nothing is lost from the sums; what cannot be believed is held, a person lets it be billed, and the
report explains every token at each stage.
"""

import pytest

from tests.integration.years.test_years_ages import book, items, one
from tests.integration.years.years_desk import Desk, at_s, desk
from tests.integration.years.years_site import DAY_S, HOUR_S

pytestmark = pytest.mark.timeout(180)

# What the site's own clock showed, in the order of sealing; tokens tell them apart.
RIGHT = {
    "2028-02-28T23:50:00": 1,
    "2028-02-29T00:05:00": 2,
    "2028-02-29T23:50:00": 4,
    "2028-03-01T00:05:00": 8,
}
SET_BACK = {"2027-03-01T06:00:00": 16, "2027-03-01T12:00:00": 32}
RIGHT_AGAIN = {"2028-03-02T06:00:00": 64}
AHEAD = {"2029-03-02T12:00:00": 128, "2029-03-02T18:00:00": 256}
# Up to the import nobody can tell these from a clock that is set back; after it, they are believed.
SET_RIGHT = {"2028-03-03T06:00:00": 512, "2028-03-03T08:00:00": 1_024}
LATER = {"2028-03-03T18:00:00": 2_048}
REGRESSED, FUTURE = 16 + 32 + 512 + 1_024, 128 + 256
BELIEVED = 1 + 2 + 4 + 8 + 64


def live(made: Desk, *parts: dict[str, int]) -> None:
    made.site.live([one(at_s(at), tokens) for part in parts for at, tokens in part.items()])


def stood(made: Desk) -> dict[str, int]:
    """Where the report finds the tokens that the site counted; every drift is 0."""
    total = made.reconcile().told["total"]
    assert total["signed"] == total["ledger"] == sum(made.site.used.values())
    names = ("held", "waiting", "stripe", "invoiced", "written_off")
    return {name: total[name] for name in names if total[name]}


def held(made: Desk) -> dict[str, int]:
    return {one["code"]: one["output_tokens"] for one in made.control("holds", "list").told}


def release(made: Desk, code: str) -> None:
    why = ("--reason", "compared with the site's log")
    made.control("holds", "release", "--site", "factory-7", "--code", code, *why)


def test_a_clock_set_back_and_ahead_holds_bills_and_loses_nothing() -> None:
    with desk("2028-03-03T12:00:00") as made:
        made.introduce(book("2028-03-01T00:00:00Z"), {"acme": "Acme"})
        live(made, RIGHT, SET_BACK, RIGHT_AGAIN, AHEAD, SET_RIGHT)
        _, taken = made.carry()
        assert taken.told["codes"] == {"ACCEPTED": 5, "CLOCK_REGRESSION": 4, "CLOCK_FUTURE": 2}
        assert held(made) == {"CLOCK_REGRESSION": REGRESSED, "CLOCK_FUTURE": FUTURE}
        assert stood(made) == {"held": REGRESSED + FUTURE, "waiting": BELIEVED}

        made.advance(8 * HOUR_S)
        live(made, LATER)
        _, taken = made.carry()
        assert taken.told["codes"] == {"ACCEPTED": 1}
        made.deliver()
        metered = 8 + 64 + 2_048
        assert stood(made) == {"held": REGRESSED + FUTURE, "stripe": metered, "invoiced": 7}
        leap = (at_s("2028-02-28T23:00:00"), at_s("2028-03-01T00:00:00") - 1)
        assert items(made) == {("Acme", *leap, 7, "0.00044"): 1}

        release(made, "CLOCK_REGRESSION")
        assert held(made) == {"CLOCK_FUTURE": FUTURE}
        waiting = {"held": FUTURE, "waiting": REGRESSED}
        assert stood(made) == waiting | {"stripe": metered, "invoiced": 7}
        made.deliver()
        metered += 512 + 1_024
        assert stood(made) == {"held": FUTURE, "stripe": metered, "invoiced": 7 + 48}
        a_year_ago = (at_s("2027-03-01T06:00:00"), at_s("2027-03-01T13:00:00") - 1)
        assert items(made)["Acme", *a_year_ago, 48, "0.00044"] == 1

        # Nothing gets another hour than its own: what was let go waits until Stripe takes it.
        release(made, "CLOCK_FUTURE")
        made.deliver()
        assert stood(made) == {"waiting": FUTURE, "stripe": metered, "invoiced": 55}
        made.advance(365 * DAY_S)
        made.deliver()
        assert stood(made) == {"stripe": metered + FUTURE, "invoiced": 55}
        hours = {hour_s: tokens for (_, _, hour_s), tokens in made.metered().items()}
        assert hours[at_s("2029-03-02T12:00:00")] == 128
        assert hours[at_s("2029-03-02T18:00:00")] == 256


def test_what_a_wrong_clock_counted_may_be_written_off_and_corrected() -> None:
    """The other way out: the hours are wrong, so they are not billed, and the right ones are."""
    with desk("2028-03-03T12:00:00") as made:
        made.introduce(book("2028-03-01T00:00:00Z"), {"acme": "Acme"})
        live(made, RIGHT, SET_BACK, RIGHT_AGAIN)
        made.carry()
        why = ("--reason", "the clock was a year behind")
        made.control(
            "holds", "write-off", "--site", "factory-7", "--code", "CLOCK_REGRESSION", *why
        )
        made.deliver()
        total = made.reconcile().told["total"]
        assert (total["signed"], total["held"], total["written_off"]) == (127, 0, 48)
        assert (total["stripe"], total["invoiced"]) == (8 + 64, 7)
        assert held(made) == {}


def test_an_hour_that_a_country_has_twice_or_not_at_all_is_one_of_its_own() -> None:
    """In New York, where all commands believe to be, and in Berlin."""
    hours = {
        "2027-10-31T00:30:00": 1,  # 02:30 in Berlin
        "2027-10-31T01:30:00": 2,  # 02:30 in Berlin again
        "2027-11-07T05:30:00": 4,  # 01:30 in New York
        "2027-11-07T06:30:00": 8,  # 01:30 in New York again
        "2028-03-12T06:59:59": 16,
        "2028-03-12T07:00:00": 32,  # 03:00 in New York: there is no hour of two
        "2028-03-26T00:59:59": 64,
        "2028-03-26T01:00:00": 128,  # 03:00 in Berlin
    }
    with desk("2028-03-27T12:00:00") as made:
        made.introduce(book("2027-11-07T06:00:00Z"), {"acme": "Acme"})
        live(made, hours)
        _, taken = made.carry()
        assert taken.told["codes"] == {"ACCEPTED": len(hours)}
        made.deliver()
        report = made.reconcile().told
        begins = {at_s(at) // HOUR_S * HOUR_S: tokens for at, tokens in hours.items()}
        rows = {at_s(row["hour"].removesuffix("Z")): row["signed"] for row in report["rows"]}
        assert rows == begins
        assert {hour_s: tokens for (_, _, hour_s), tokens in made.metered().items()} == {
            hour_s: tokens for hour_s, tokens in begins.items() if tokens >= 16
        }
        # The price changed between the two hours of the same name.
        of = {(quantity, price) for _, _, _, quantity, price in items(made)}
        assert of == {(3, "0.00044"), (4, "0.00044"), (8, "0.00066")}
