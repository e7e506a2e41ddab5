"""The lease over time: what follows what, what never comes unwarned, what no clock can gain."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.clock import iso
from appliance.sync.lease import (
    DAY_NS,
    FROZEN_NS,
    WARNED_NS_MIN,
    WARNING_NS,
    Basis,
    Stage,
    assess,
    heard,
    remember,
    words,
)
from tests.fakes.clock import START_NS
from tests.fakes.vendor import Vendor

VENDOR = Vendor("apl_1", "00" * 32)
ORDER = [Stage.ACTIVE, Stage.WARNING, Stage.GRACE, Stage.FROZEN, Stage.THROTTLED]
WARNED = Basis(warned_ns=START_NS)  # long ago, so that only the lease decides


def stage_after(days: int, basis: Basis = WARNED, **changes: Any) -> Stage:
    entitlement = VENDOR.entitlement(START_NS, **changes)
    return assess([entitlement], basis, START_NS + days * DAY_NS).stage


def test_the_stages_follow_each_other() -> None:
    throttling = {"throttle_tokens_per_s": 50}
    assert stage_after(0) is Stage.ACTIVE
    assert stage_after(19) is Stage.ACTIVE
    assert stage_after(20) is Stage.WARNING
    assert stage_after(29) is Stage.WARNING
    assert stage_after(30) is Stage.GRACE
    assert stage_after(43) is Stage.GRACE
    assert stage_after(44) is Stage.FROZEN
    assert stage_after(50, **throttling) is Stage.FROZEN
    assert stage_after(51, **throttling) is Stage.THROTTLED
    assert stage_after(9_999) is Stage.FROZEN  # without a throttle there is none


def test_without_an_entitlement_nothing_is_refused() -> None:
    standing = assess([], Basis(), START_NS)
    assert (standing.stage, standing.frozen, words(standing)) == (Stage.NONE, False, ("", ""))


def test_an_entitlement_that_has_not_begun_leaves_the_one_before_in_force() -> None:
    now = VENDOR.entitlement(START_NS)
    later = VENDOR.entitlement(START_NS, not_before=iso(START_NS + 5 * DAY_NS), customer="Later")
    before = assess([now, later], WARNED, START_NS + DAY_NS)
    after = assess([now, later], WARNED, START_NS + 5 * DAY_NS)
    assert before.entitlement == now
    assert after.entitlement == later
    alone = assess([later], WARNED, START_NS)
    assert alone.stage is Stage.NONE
    assert "begins at" in words(alone)[0]


def test_a_receipt_prolongs_the_lease_and_never_beyond_the_end() -> None:
    longer = heard(WARNED, iso(START_NS), START_NS, iso(START_NS + 60 * DAY_NS))
    assert stage_after(45, longer) is Stage.ACTIVE
    shorter = heard(longer, iso(START_NS), START_NS, iso(START_NS + DAY_NS))
    assert shorter.receipt_lease == longer.receipt_lease
    for_ever = heard(WARNED, iso(START_NS), START_NS, iso(START_NS + 9_999 * DAY_NS))
    assert stage_after(364, for_ever) is Stage.WARNING
    assert stage_after(365, for_ever) is Stage.GRACE


def test_a_site_that_was_off_over_the_end_is_warned_before_anything_is_refused() -> None:
    entitlement = VENDOR.entitlement(START_NS, throttle_tokens_per_s=50)
    wall_ns, basis = START_NS + 200 * DAY_NS, Basis()
    first = assess([entitlement], basis, wall_ns)
    assert first.stage is Stage.GRACE
    assert first.days_left == 1
    basis = remember(first, basis, wall_ns)
    day_later = assess([entitlement], basis, wall_ns + WARNED_NS_MIN)
    assert day_later.stage is Stage.FROZEN
    assert day_later.throttle_tokens_per_s is None
    throttled = assess([entitlement], basis, wall_ns + WARNED_NS_MIN + FROZEN_NS)
    assert throttled.throttle_tokens_per_s == 50


def test_a_renewed_lease_forgets_the_warning() -> None:
    basis = Basis(seen_ns=START_NS, warned_ns=START_NS - DAY_NS)
    standing = assess([VENDOR.entitlement(START_NS)], basis, START_NS)
    assert remember(standing, basis, START_NS).warned_ns is None


def test_a_clock_that_ran_ahead_is_forgiven_when_the_vendor_is_heard() -> None:
    entitlement = VENDOR.entitlement(START_NS)
    ahead_ns = START_NS + 365 * DAY_NS
    basis = remember(assess([entitlement], Basis(), ahead_ns), Basis(), ahead_ns)
    wrong = assess([entitlement], basis, START_NS + DAY_NS)  # corrected, and still believed
    assert wrong.now_ns == ahead_ns
    basis = heard(basis, iso(START_NS + DAY_NS), START_NS + DAY_NS)
    assert assess([entitlement], basis, START_NS + DAY_NS).stage is Stage.ACTIVE


def test_the_words_tell_the_days_that_are_left() -> None:
    warning = assess([VENDOR.entitlement(START_NS)], WARNED, START_NS + 22 * DAY_NS)
    assert words(warning)[0].startswith("The lease ends in 8 days, at 2027-02-14T08:00:00.000Z")
    grace = assess([VENDOR.entitlement(START_NS)], WARNED, START_NS + 43 * DAY_NS + 1)
    assert "less than a day" in words(grace)[0]
    frozen = assess(
        [VENDOR.entitlement(START_NS, throttle_tokens_per_s=1_500)],
        WARNED,
        START_NS + 46 * DAY_NS,
    )
    assert "In 5 days" in words(frozen)[0]
    assert "1,500 tokens a second" in words(frozen)[0]
    assert words(frozen)[1]


offsets = st.integers(-500 * DAY_NS, 900 * DAY_NS)


@st.composite
def entitlements(draw: st.DrawFn) -> Any:
    return VENDOR.entitlement(
        START_NS,
        lease_days=draw(st.integers(0, 400)),
        grace_days=draw(st.integers(0, 60)),
        throttle_tokens_per_s=draw(st.sampled_from([0, 1, 1_000])),
    )


@given(
    entitlements(), st.lists(offsets, min_size=1, max_size=12), st.sampled_from([None, START_NS])
)
def test_whatever_the_clock_does_the_stage_only_ever_goes_on(
    entitlement: Any, walls: list[int], warned_ns: int | None
) -> None:
    """The clock jumps as it likes, back too: time is never gained."""
    basis, reached = Basis(warned_ns=warned_ns), -1
    highest = 0
    for wall_ns in walls:
        now_ns = max(START_NS + wall_ns, 0)
        highest = max(highest, now_ns)
        standing = assess([entitlement], basis, now_ns)
        assert standing.now_ns == highest
        if standing.stage is not Stage.NONE:
            assert ORDER.index(standing.stage) >= reached
            reached = ORDER.index(standing.stage)
        basis = remember(standing, basis, now_ns)


@given(entitlements(), st.lists(st.integers(0, 30 * DAY_NS), max_size=40))
def test_nothing_is_refused_that_was_not_shown_before_for_a_day(
    entitlement: Any, steps: list[int]
) -> None:
    basis, now_ns = Basis(), START_NS
    shown_since: int | None = None
    for step in steps:
        now_ns += step
        standing = assess([entitlement], basis, now_ns)
        if standing.frozen:
            assert shown_since is not None
            assert now_ns - shown_since >= WARNED_NS_MIN
        if standing.stage is Stage.THROTTLED:
            assert entitlement.throttle_tokens_per_s > 0
            assert shown_since is not None
            assert now_ns - shown_since >= WARNED_NS_MIN + FROZEN_NS
        if standing.stage not in {Stage.NONE, Stage.ACTIVE} and shown_since is None:
            shown_since = now_ns
        basis = remember(standing, basis, now_ns)


@given(entitlements(), offsets, st.integers(1, 400))
def test_a_longer_lease_is_never_worse(entitlement: Any, offset: int, more_days: int) -> None:
    now_ns = max(START_NS + offset, 0)
    lease = iso(START_NS + more_days * DAY_NS)
    plain = assess([entitlement], WARNED, now_ns)
    longer = assess([entitlement], replace(WARNED, receipt_lease=lease), now_ns)
    if plain.stage is not Stage.NONE:
        assert ORDER.index(longer.stage) <= ORDER.index(plain.stage)


def test_the_warning_is_part_of_every_lease_that_is_long_enough() -> None:
    entitlement = VENDOR.entitlement(START_NS, lease_days=5)
    assert WARNING_NS > 5 * DAY_NS
    assert assess([entitlement], Basis(), START_NS).stage is Stage.WARNING
