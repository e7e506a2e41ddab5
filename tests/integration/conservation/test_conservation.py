"""The law of conservation over real processes that are killed with SIGKILL at named points.

CONSERVATION_KILLS says how often (`make conservation`: 1,000), CONSERVATION_SEED repeats a run. All
kills are of whole processes: `cic serve` (gateway, ledger, sealer, shipper) and `cic control-plane
serve` (ingest, billing, delivery). Between kills the clocks jump, so that the double has forgotten
identifiers of what was being sent, and Stripe's answers get lost at random.
"""

import logging
import os
import random

import pytest

from tests.fakes.stripe.faults import FAULTS
from tests.integration.conservation.balance import TAKEN, Sheet
from tests.integration.conservation.points import CONTROL, SITE, names
from tests.integration.conservation.world import HOUR_S, World, world

KILLS = int(os.environ.get("CONSERVATION_KILLS", "100"))
SEED = int(os.environ.get("CONSERVATION_SEED", "1"))
ROUND_S = 6.0
CHECK_EVERY = 200  # kills, after which everything is brought to rest and added up
EVENTS = "/v1/billing/meter_events"
STRIPE_FAULTS = tuple(fault for fault in FAULTS if fault not in ("slow", "rate_limited"))
_log = logging.getLogger(__name__)

JUMPS_S = (0, 0, 0, HOUR_S, 13 * HOUR_S, 25 * HOUR_S)


def kills(made: World, chance: random.Random, count: int) -> None:
    """So many kills, every point in turn in an order of the seed's."""
    waiting: list[str] = []
    missed: dict[str, int] = {}
    done = 0
    while done < count:
        if not waiting:
            waiting = [*names(SITE), *names(CONTROL)]
            chance.shuffle(waiting)
        point = waiting.pop()
        arranged = made.arrange(point)
        hit = 1 if arranged else chance.choice((1, 1, 2, 3))
        if made.round(chance, point, hit, deadline_s=ROUND_S):
            done += 1
        else:
            missed[point] = missed.get(point, 0) + 1
            assert missed[point] < 5, f"{point} is never reached"
        made.leap(chance.choice(JUMPS_S))


@pytest.mark.serial
@pytest.mark.timeout(240 + 3 * KILLS)
def test_every_token_is_billed_once_or_explained_whatever_is_killed() -> None:
    chance = random.Random(SEED)
    with world() as made:
        made.stripe.double.faults.at_random(SEED, 0.05, STRIPE_FAULTS, EVENTS)
        done = 0
        while done < KILLS:
            count = min(CHECK_EVERY, KILLS - done)
            kills(made, chance, count)
            done += count
            sheet = made.settled()
            _log.info("after %s kills:\n%s", done, sheet)
            assert sheet.wrong == []
            the_report_agrees(made, sheet)
            made.stripe.double.faults.at_random(SEED + done, 0.05, STRIPE_FAULTS, EVENTS)
        every = {*names(SITE), *names(CONTROL)}
        if len(every) <= KILLS:
            assert made.kills.keys() == every
            assert dict(sheet.lines)["Stripe: late invoice items"] > 0
        lines = dict(sheet.lines)
        assert lines["held"] > 0  # of the tenant that is mapped to nobody
        assert lines["free"] > 0
        assert lines["ambiguous and not at Stripe: a person decides"] * 200 < lines["outbox"]
        assert lines["Stripe: meter events"] > 0
        # One call at a time for each customer and meter; but the last call of a process that was
        # killed may still be under way at Stripe when the next process makes its first.
        assert len(made.stripe.double.limits.overlaps) * 100 <= KILLS


def the_report_agrees(made: World, sheet: Sheet) -> None:
    """`cic control-plane reconcile` finds what the checker found, and no drift anywhere."""
    code, rows = made.reconciled()
    assert code == 0
    for row in rows:
        assert row["drift"] == "0" or ("ambiguous" in row["cause"] and row["explained"] == "true")
    ours, total = dict(sheet.lines), rows[-1]
    for column, line in (
        ("signed", "Σ manifests"),
        ("ledger", "accepted"),
        ("free", "free"),
        ("held", "held"),
        ("outbox", "outbox"),
        ("stripe", "Stripe: meter events"),
        ("invoiced", "Stripe: late invoice items"),
    ):
        assert int(total[column]) == ours[line], column


def killed_while_sending(made: World, jump_s: int) -> None:
    """A process dies after Stripe took its events and before it wrote that down."""
    assert made.round(random.Random(SEED), "delivery sends an event after", 2, deadline_s=20)
    made.leap(jump_s)


# What a naive delivery does, and how much later it is started again: while Stripe still knows the
# identifier, and after Stripe has forgotten it.
NAIVE_JUMPS_S = {"anew": 60, "blindly": 25 * HOUR_S}


@pytest.mark.serial
@pytest.mark.timeout(240)
@pytest.mark.parametrize("jump_s", NAIVE_JUMPS_S.values())
def test_the_real_delivery_survives_what_the_naive_ones_do_not(jump_s: int) -> None:
    with world() as made:
        killed_while_sending(made, jump_s)
        sheet = made.settled()
    assert sheet.wrong == []


@pytest.mark.serial
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("naive", "jump_s"), NAIVE_JUMPS_S.items())
def test_a_naive_resend_bills_twice_and_is_caught(naive: str, jump_s: int) -> None:
    with world(naive=naive) as made:
        killed_while_sending(made, jump_s)
        sheet = made.settled()
        books = made.books()
    assert any("billed twice" in one for one in sheet.wrong), sheet
    assert all("not billed" not in one for one in sheet.wrong), sheet
    taken = sum(books.outbox.get(state, 0) for state in TAKEN)
    assert dict(sheet.lines)["Stripe: meter events"] > taken
