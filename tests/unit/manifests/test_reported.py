"""Stage 2: each code, its order, and clocks that are wrong in every direction."""

from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.manifests.codes import HELD, Code
from appliance.manifests.documents import EngineCounters, Totals
from appliance.manifests.epochs import granted_state, make_grant
from appliance.manifests.errors import KeyChainBroken
from appliance.manifests.moments import moment, moment_ms
from appliance.manifests.reported import Accepted, ReportedState, check_chain
from appliance.manifests.verify import Checked, Finding, check_bytes
from tests.fakes.sites import MINUTE_NS, START_NS, Site, signing_key

YEAR_NS = 365 * 24 * 60 * MINUTE_NS
HOUR_MS = 3_600_000


def sealed(site: Site, records: int = 3) -> Checked:
    """The site's next manifest, as it comes through stage 1."""
    envelope, lines, _ = site.seal(records)
    checked = check_bytes(envelope, lines, site.known())
    assert isinstance(checked, Checked)
    return checked


def now_ms(site: Site) -> int:
    """A minute after the site's newest window."""
    return (site.at_ns - 4 * MINUTE_NS) // 1_000_000


def accepted(state: ReportedState, checked: Checked, now: int) -> Accepted:
    verdict = check_chain(state, checked, now)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def refused(
    state: ReportedState, checked: Checked, stored: str | None = None, now: int = 0
) -> Finding:
    verdict = check_chain(state, checked, now, stored)
    assert isinstance(verdict, Finding)
    return verdict


def reported(site: Site, count: int) -> tuple[ReportedState, list[Checked]]:
    """A site whose first manifests were accepted."""
    state, taken = ReportedState(), []
    for _ in range(count):
        taken.append(sealed(site))
        state = accepted(state, taken[-1], now_ms(site)).state
    return state, taken


def with_header(checked: Checked, **changes: object) -> Checked:
    """As if the site had signed something else: stage 2 does not look at signatures."""
    return replace(checked, header=msgspec.structs.replace(checked.header, **changes))


def test_a_chain_is_accepted_one_after_the_other() -> None:
    site = Site()
    state, taken = reported(site, 5)
    assert (state.epoch, state.accepted_through, state.event_seq_hi) == (1, 5, 15)
    assert state.head_sha256 == taken[-1].sha256
    assert state.cumulative == taken[-1].cumulative
    assert state.log == site.state.log
    assert state.wall_ms == taken[-1].wall_ms
    assert check_chain(ReportedState(), taken[0], now_ms(site)) == accepted(
        ReportedState(), taken[0], now_ms(site)
    )


def test_windows_without_records_are_links_as_others_are() -> None:
    site = Site()
    state, _ = reported(site, 1)
    state = accepted(state, sealed(site, 0), now_ms(site)).state
    state = accepted(state, sealed(site, 2), now_ms(site)).state
    assert (state.accepted_through, state.event_seq_hi) == (3, 5)


def test_the_state_lives_through_its_bytes() -> None:
    state, _ = reported(Site(), 3)
    state = replace(state, closed=((1, 9),), frozen=True)
    assert ReportedState.from_bytes(state.to_bytes()) == state
    assert ReportedState.from_bytes(ReportedState().to_bytes()) == ReportedState()
    for damaged in (b"{", b'{"epoch":"1"}', b'{"log":"00"}', b'{"log":7}', b'{"log":"zz"}'):
        with pytest.raises(msgspec.MsgspecError):
            ReportedState.from_bytes(damaged)


def test_already_accepted_every_time_it_comes_again() -> None:
    site = Site()
    state, taken = reported(site, 3)
    for checked in taken:
        found = refused(state, checked, checked.sha256)
        assert found == Finding(
            Code.ALREADY_ACCEPTED, f"1-{checked.header.seq} was accepted before"
        )
    # Also of a site that is frozen, and of an epoch that has ended.
    assert refused(replace(state, frozen=True), taken[0], taken[0].sha256).code is (
        Code.ALREADY_ACCEPTED
    )
    grant = make_grant(state, site.appliance_id, site.key.public, "restored", "")
    after = granted_state(state, grant)
    assert refused(after, taken[2], taken[2].sha256).code is Code.ALREADY_ACCEPTED


def test_fork_of_two_clones() -> None:
    site = Site()
    state, _ = reported(site, 2)
    clone = site.copy()
    first, other = sealed(site), sealed(clone, 4)
    state = accepted(state, first, now_ms(site)).state
    found = refused(state, other, first.sha256)
    assert found.code is Code.FORK
    assert first.sha256 in found.detail
    frozen = replace(state, frozen=True)
    assert refused(frozen, sealed(site), now=now_ms(site)).code is Code.FORK


def test_fork_of_a_copy_that_was_restored() -> None:
    site = Site()
    reported(site, 2)
    backup = site.copy()
    state, taken = ReportedState(), []
    site = Site()
    for _ in range(4):
        taken.append(sealed(site))
        state = accepted(state, taken[-1], now_ms(site)).state
    backup.at_ns += 60 * MINUTE_NS
    assert refused(state, sealed(backup), taken[2].sha256).code is Code.FORK
    # Even where the manifest of that number was lost, it cannot be a new one.
    assert refused(state, with_header(taken[0], wall="x")).code is Code.FORK


def test_fork_of_what_waits_behind_a_gap() -> None:
    site = Site()
    state, _ = reported(site, 1)
    sealed(site)
    clone = site.copy()
    waiting, other = sealed(site), sealed(clone, 4)
    assert refused(state, waiting).code is Code.GAP
    assert refused(state, waiting, waiting.sha256).code is Code.GAP  # it came again
    assert refused(state, other, waiting.sha256).code is Code.FORK


def test_gap_names_what_is_missing() -> None:
    site = Site()
    state, _ = reported(site, 1)
    missing = [sealed(site) for _ in range(3)]
    late = sealed(site)
    assert refused(state, late) == Finding(Code.GAP, "missing: epoch 1, 2 to 4")
    for checked in missing:
        state = accepted(state, checked, now_ms(site)).state
    assert accepted(state, late, now_ms(site)).code is Code.ACCEPTED


def test_epoch_closed() -> None:
    site = Site()
    state, _ = reported(site, 2)
    waiting = [sealed(site), sealed(site)][1]
    early = with_header(waiting, epoch=2, seq=1)
    assert refused(state, early).detail == "epoch 2 was not granted; 1 is open"
    grant = make_grant(state, site.appliance_id, site.key.public, "restored", "")
    state = granted_state(state, grant)
    assert refused(state, waiting).detail == "epoch 1 was closed; 2 is open"
    # It was stored, and never accepted: to say so would lose it unseen.
    assert refused(state, waiting, waiting.sha256).code is Code.EPOCH_CLOSED


def test_chain_broken() -> None:
    site = Site()
    state, _ = reported(site, 2)
    broken = with_header(sealed(site), prev_sha256="0" * 64)
    assert refused(state, broken).code is Code.CHAIN_BROKEN


def test_log_inconsistent() -> None:
    site = Site()
    state, _ = reported(site, 2)
    checked = sealed(site)
    assert refused(state, with_header(checked, log_size=1)).code is Code.LOG_INCONSISTENT
    assert refused(state, with_header(checked, log_root="0" * 64)).code is Code.LOG_INCONSISTENT


def test_event_seq_overlap_and_gap() -> None:
    site = Site()
    state, _ = reported(site, 2)
    checked = sealed(site)
    assert refused(state, with_header(checked, event_seq_lo=6)).code is Code.EVENT_SEQ_OVERLAP
    found = refused(state, with_header(checked, event_seq_lo=9))
    assert found == Finding(Code.EVENT_SEQ_GAP, "missing: 7 to 8")


def test_cumulative_regression() -> None:
    site = Site()
    state, _ = reported(site, 2)
    checked = sealed(site)
    for wrong in (checked.totals, checked.cumulative + checked.totals):
        found = refused(state, replace(checked, cumulative=wrong))
        assert found.code is Code.CUMULATIVE_REGRESSION


def test_counter_regression_is_accepted_and_held() -> None:
    site = Site()
    state, _ = reported(site, 2)
    site.engines = (0, 0)
    held = accepted(state, sealed(site), now_ms(site))
    assert held.holds == (Code.COUNTER_REGRESSION,)
    assert held.code is Code.COUNTER_REGRESSION
    assert accepted(held.state, sealed(site), now_ms(site)).holds == ()


@pytest.mark.parametrize("counters", [("9", "9"), ("10", "8"), ("0", "9")])
def test_either_counter_of_the_engines_is_watched(counters: tuple[str, str]) -> None:
    site = Site()
    state = replace(ReportedState(), prompt_tokens=10, generated_tokens=9)
    engines = EngineCounters(prompt_tokens=counters[0], generated_tokens=counters[1])
    checked = with_header(sealed(site), engines=engines)
    assert accepted(state, checked, now_ms(site)).holds == (Code.COUNTER_REGRESSION,)
    same = EngineCounters(prompt_tokens="10", generated_tokens="9")
    checked = with_header(checked, engines=same)
    assert accepted(state, checked, now_ms(site)).holds == ()


def test_the_first_that_fails_is_the_answer() -> None:
    site = Site()
    state, taken = reported(site, 2)
    nothing = Totals(requests="0", input_tokens="0", cached_tokens="0", output_tokens="0")
    good = sealed(site)
    wrong = replace(
        with_header(
            good,
            epoch=2,
            seq=9,
            prev_sha256="0" * 64,
            log_size=0,
            event_seq_lo=1,
            cumulative_totals=nothing,
            engines=EngineCounters(prompt_tokens="0", generated_tokens="0"),
            regressions=7,
        ),
        cumulative=good.totals,
        wall_ms=0,
        latest_hour_ms=2**50,
    )
    right = good.header
    steps = [
        ({}, wrong.sha256[::-1], Code.FORK),
        ({}, None, Code.EPOCH_CLOSED),
        ({"epoch": 1}, None, Code.GAP),
        ({"seq": 3}, None, Code.CHAIN_BROKEN),
        ({"prev_sha256": right.prev_sha256}, None, Code.LOG_INCONSISTENT),
        ({"log_size": right.log_size}, None, Code.EVENT_SEQ_OVERLAP),
        ({"event_seq_lo": right.event_seq_lo + 1}, None, Code.EVENT_SEQ_GAP),
        ({"event_seq_lo": right.event_seq_lo}, None, Code.CUMULATIVE_REGRESSION),
    ]
    for changes, stored, expected in steps:
        wrong = with_header(wrong, **changes)
        assert refused(state, wrong, stored).code is expected
    held = accepted(state, replace(wrong, cumulative=good.cumulative), now_ms(site))
    assert held.holds == (Code.COUNTER_REGRESSION, Code.CLOCK_REGRESSION, Code.CLOCK_FUTURE)
    assert set(held.holds) < HELD
    assert refused(state, taken[0], taken[0].sha256).code is Code.ALREADY_ACCEPTED


def test_a_clock_a_year_back_is_held_until_it_is_right_again() -> None:
    site = Site()
    state, _ = reported(site, 2)
    now = now_ms(site)
    site.at_ns -= YEAR_NS
    for _ in range(3):
        step = accepted(state, sealed(site), now)
        assert step.holds == (Code.CLOCK_REGRESSION,)
        state = step.state
    assert state.regressions == 3
    site.at_ns += YEAR_NS
    step = accepted(state, sealed(site), now_ms(site))
    assert step.holds == ()
    assert step.state.event_seq_hi == 18  # nothing was lost


def test_a_clock_a_year_ahead_is_held_and_forgiven_once_it_is_right_again() -> None:
    site = Site()
    state, _ = reported(site, 2)
    now = now_ms(site)
    site.at_ns += YEAR_NS
    for _ in range(3):
        step = accepted(state, sealed(site), now)
        assert step.holds == (Code.CLOCK_FUTURE,)
        state = step.state
    site.at_ns -= YEAR_NS
    step = accepted(state, sealed(site), now_ms(site))
    assert step.holds == (Code.CLOCK_REGRESSION,)  # the window in which it was set right
    for _ in range(3):
        step = accepted(step.state, sealed(site), now_ms(site))
        assert step.holds == ()
        assert step.state.watermark_ms > step.state.wall_ms + 300 * 24 * HOUR_MS
    assert step.state.event_seq_hi == 27


def test_a_clock_that_was_ahead_within_one_window_is_held() -> None:
    site = Site()
    state, _ = reported(site, 1)
    records = [*site.make_records(2), *site.make_records(1, settled_at_ns=site.at_ns + YEAR_NS)]
    envelope, lines, _ = site.seal(records)
    checked = check_bytes(envelope, lines, site.known())
    assert isinstance(checked, Checked)
    step = accepted(state, checked, now_ms(site))
    assert step.holds == (Code.CLOCK_REGRESSION, Code.CLOCK_FUTURE)
    assert accepted(step.state, sealed(site), now_ms(site)).holds == ()


@pytest.mark.parametrize(
    ("ahead_ms", "held"),
    [(0, False), (5 * 60_000, False), (5 * 60_000 + 1, True)],
)
def test_a_clock_may_be_five_minutes_ahead(ahead_ms: int, held: bool) -> None:  # noqa: FBT001
    site = Site()
    checked = sealed(site)
    step = accepted(ReportedState(), checked, checked.wall_ms - ahead_ms)
    assert step.holds == ((Code.CLOCK_FUTURE,) if held else ())


def test_a_machine_s_copy_is_seen_by_its_running_time() -> None:
    site = Site()
    state, _ = reported(site, 2)
    twin = site.copy()
    twin.mono_ns -= 6 * MINUTE_NS
    assert accepted(state, sealed(twin), now_ms(twin)).holds == (Code.CLOCK_REGRESSION,)
    rebooted = site.copy()
    rebooted.mono_ns, rebooted.boot_id = 1, "another"
    assert accepted(state, sealed(rebooted), now_ms(rebooted)).holds == ()


def test_a_site_that_forgot_its_regressions_is_held() -> None:
    site = Site()
    state, _ = reported(site, 1)
    state = replace(state, regressions=2)
    assert accepted(state, sealed(site), now_ms(site)).holds == (Code.CLOCK_REGRESSION,)


@pytest.mark.parametrize(
    "at",
    [
        "2028-02-29T23:57:00.000Z",  # over the end of a leap day
        "2028-02-28T23:57:00.000Z",
        "2027-02-28T23:57:00.000Z",
        "2026-10-25T00:57:00.000Z",  # summer time ends and begins in Europe
        "2027-03-28T00:57:00.000Z",
        "2026-12-31T23:57:00.000Z",  # over the end of a year
    ],
)
def test_days_that_others_count_twice_or_not_at_all_hold_nothing(at: str) -> None:
    site = Site()
    site.at_ns = moment_ms(at) * 1_000_000
    state = ReportedState()
    for _ in range(30):  # two and a half hours
        step = accepted(state, sealed(site), now_ms(site))
        assert step.holds == ()
        state = step.state
    assert state.event_seq_hi == 90


def test_400_days_offline_hold_nothing() -> None:
    site = Site()
    site.at_ns = START_NS - 400 * 24 * 60 * MINUTE_NS
    state = ReportedState()
    for _ in range(50):
        step = accepted(state, sealed(site), START_NS // 1_000_000)
        assert step.holds == ()
        state = step.state
        site.at_ns += 8 * 24 * 60 * MINUTE_NS


def test_an_epoch_goes_on_where_the_control_plane_saw_the_one_before() -> None:
    site = Site()
    state, _ = reported(site, 3)
    new = signing_key(5)
    grant = make_grant(state, site.appliance_id, new.public, "restored", moment(0))
    assert (grant.epoch, grant.predecessor_seq, grant.event_seq) == (2, 3, 9)
    after = granted_state(state, grant)
    assert (after.epoch, after.accepted_through, after.frozen) == (2, 0, False)
    assert after.closed == ((1, 3),)
    site.state = replace(site.state, epoch=2, seq=0)
    site.key = new
    site.engines = (0, 0)  # what the copy had added up was older
    site.mono_ns, site.boot_id = 5, "new"
    step = accepted(after, sealed(site), now_ms(site))
    assert (step.code, step.state.log.size) == (Code.ACCEPTED, 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"predecessor_seq": 2},
        {"predecessor_sha256": "0" * 64},
        {"predecessor_epoch": 2},
        {"event_seq": 8},
        {"log_size": 2},
        {"log_root": "0" * 64},
        {"epoch": 1},
        {"epoch": 7},
        {"log_frontier": ()},
    ],
)
def test_a_grant_on_another_state_is_refused(changes: dict[str, object]) -> None:
    site = Site()
    state, _ = reported(site, 3)
    grant = make_grant(state, site.appliance_id, site.key.public, "restored", "")
    with pytest.raises(KeyChainBroken):
        granted_state(state, msgspec.structs.replace(grant, **changes))
    granted_state(state, grant)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_any_order_of_delivery_ends_with_the_same_state(counts: list[int], chance: object) -> None:
    """Manifests come in any order, again and again, as sticks and wires bring them."""
    site = Site()
    sent = [sealed(site, count) for count in counts]
    state, stored = ReportedState(), dict[int, str]()
    while state.accepted_through < len(sent):
        one = sent[chance.randrange(len(sent))]  # type: ignore[attr-defined]
        verdict = check_chain(state, one, now_ms(site), stored.get(one.header.seq))
        stored[one.header.seq] = one.sha256
        if isinstance(verdict, Accepted):
            assert verdict.holds == ()
            state = verdict.state
        else:
            assert verdict.code in {Code.ALREADY_ACCEPTED, Code.GAP}
    assert state.event_seq_hi == sum(counts)
    assert state.cumulative == sent[-1].cumulative
    assert state.log == site.state.log
    assert sha256(sent[-1].payload).hexdigest() == state.head_sha256
