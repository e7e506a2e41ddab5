"""When a burst has to end for its budget, and which machines it still wants."""

from dataclasses import replace

from appliance.fleet.burst.budget import (
    ENDING_S,
    RETRY_S,
    RETRY_S_MAX,
    exhausted,
    life_s,
    missing,
    spent_micro,
)
from appliance.registry.bursts import BurstRow, BurstSpec, MemberRow, Offer
from tests.fakes.clock import START_NS

MICRO = 1_000_000
SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * SECOND_NS
SPEC = BurstSpec("L4", 1, 2, "prefer", 2 * MICRO)
BURST = BurstRow("bur_1", "more", SPEC, "up", "", START_NS, None)
TAKEN = Offer("AWS", "us-east-1", "g6.xlarge", "L4", 1, True, 400_000)
RUNNING = MemberRow(
    *("mem_1", "bur_1", 0, "burst-more-0-0", "running", "", START_NS),
    offer=TAKEN,
    price_micro=400_000,
    paid_from_ns=START_NS,
)


def test_machines_cost_from_their_launch_to_their_end() -> None:
    gone = replace(RUNNING, id="mem_2", state="gone", paid_until_ns=START_NS + HOUR_NS // 2)
    never = replace(RUNNING, id="mem_3", state="gone", paid_from_ns=None)
    now_ns = START_NS + HOUR_NS
    assert spent_micro((RUNNING, gone, never), now_ns) == 400_000 + 200_000


def test_the_end_is_paid_for_as_well() -> None:
    pair = (RUNNING, replace(RUNNING, id="mem_2", ordinal=1))
    # Two dollars at 0.80 for both: two and a half hours, less what the end takes.
    last_ns = START_NS + HOUR_NS * 5 // 2 - ENDING_S * SECOND_NS
    assert not exhausted(BURST, pair, last_ns - SECOND_NS)
    assert exhausted(BURST, pair, last_ns)
    assert spent_micro(pair, last_ns + ENDING_S * SECOND_NS) <= SPEC.budget_micro


def test_a_machine_is_given_its_share_of_what_is_left() -> None:
    assert life_s(BURST, (), 400_000, START_NS) == 9_000 - ENDING_S
    now_ns = START_NS + HOUR_NS
    assert life_s(BURST, (RUNNING,), 400_000, now_ns) == 7_200 - ENDING_S
    assert life_s(BURST, (RUNNING,), 400_000, START_NS + 99 * HOUR_NS) == 0


def test_every_place_wants_a_machine_until_the_burst_is_to_end() -> None:
    now_ns = START_NS + HOUR_NS
    assert missing(BURST, (RUNNING,), now_ns) == [(1, now_ns)]
    assert missing(replace(BURST, wish="down"), (), now_ns) == []
    leaving = replace(RUNNING, state="leaving")
    assert missing(BURST, (leaving,), now_ns) == [(0, now_ns), (1, now_ns)]


def test_a_place_that_gets_no_machine_is_tried_ever_more_slowly() -> None:
    failed = replace(RUNNING, state="gone", offer=None, ordinal=1)
    waits_s = []
    for count in (1, 2, 3, 9, 500):
        members = (RUNNING, *(replace(failed, id=f"mem_{n}") for n in range(count)))
        ((_, not_before_ns),) = missing(BURST, members, START_NS)
        waits_s.append((not_before_ns - START_NS) / SECOND_NS)
    assert waits_s == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, RETRY_S_MAX, RETRY_S_MAX]
    worked = replace(RUNNING, id="mem_w", state="gone", ordinal=1)
    members = (RUNNING, replace(failed, id="mem_f"), worked)
    assert missing(BURST, members, START_NS) == [(1, START_NS)]
