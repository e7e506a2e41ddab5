"""The next step of each machine that is lent."""

from dataclasses import replace

import pytest

from appliance.fleet.burst.members import (
    JOIN_S,
    LAUNCH_S,
    LEAVE_S,
    SILENT_S,
    Become,
    Down,
    Empty,
    Facts,
    Launch,
    Step,
    next_step,
)
from appliance.registry.bursts import MemberRow, MemberState
from tests.fakes.clock import START_NS

SECOND_NS = 1_000_000_000
NOW = Facts("up", None, "", "up", "ready", notice=False)


def member(state: MemberState, **more: object) -> MemberRow:
    row = MemberRow("mem_1", "bur_1", 0, "burst-more-0-0", state, "why", START_NS)
    return replace(row, **more)  # type: ignore[arg-type]  # fields of it


def step(row: MemberRow, after_s: float = 1, **facts: object) -> Step:
    now_ns = START_NS + round(after_s * SECOND_NS)
    return next_step(row, replace(NOW, **facts), now_ns)  # type: ignore[arg-type]  # fields of it


def test_one_that_is_wanted_is_launched_when_its_time_has_come() -> None:
    later = member("wanted", not_before_ns=START_NS + 5 * SECOND_NS)
    assert step(later, 4) is None
    assert step(later, 5) == Launch()
    assert step(later, 4, wish="down") == Become("gone", "not needed any more")


def test_a_launch_succeeds_fails_or_takes_too_long() -> None:
    row = member("launching", request="r1")
    assert step(row, request="running", cluster="init") is None
    assert step(row, request="done") == Become("joining")
    failed = step(row, request="failed", message="no capacity anywhere", cluster="none")
    assert failed == Down("not launched: no capacity anywhere")
    assert isinstance(step(row, LAUNCH_S + 1, request="running"), Down)
    assert isinstance(step(row, request="running", wish="down"), Down)


def test_a_launch_that_was_cut_off_by_a_restart_is_not_made_twice() -> None:
    row = member("launching")  # on record as asked for; SkyPilot's answer was lost
    assert step(row, cluster="none") == Launch()
    assert step(row, cluster="init") == Become("joining")


def test_one_that_joins_runs_and_one_that_does_not_goes_back() -> None:
    row = member("joining")
    assert step(row, node="absent") is None
    assert step(row, node="joining") is None
    assert step(row, node="ready") == Become("running")
    assert isinstance(step(row, JOIN_S + 1, node="absent"), Down)
    assert isinstance(step(row, node="absent", cluster="none"), Down)
    assert isinstance(step(row, node="absent", wish="down"), Down)


def test_one_that_runs_leaves_on_notice_when_not_wanted_and_when_it_is_lost() -> None:
    row = member("running")
    assert step(row) is None
    assert step(row, notice=True) == Become("leaving", "its cloud takes it away")
    assert step(row, wish="down") == Empty("not needed any more")
    assert step(row, cluster="none") == Down("taken away")
    assert step(row, node="failed") == Empty("its agent says that nothing can run there")
    assert step(member("leaving"), node="failed") == Down("why")
    assert step(member("joining"), node="failed") is None, "it may mend itself in its time"
    assert step(row, node="silent") is None
    # However long it has run: what counts is for how long nothing was heard.
    assert step(row, SILENT_S + 1, node="silent", silent_s=20.0) is None
    silent = SILENT_S + 1.0
    assert isinstance(step(row, node="silent", silent_s=silent), Down)
    assert step(row, node="silent", silent_s=silent, cluster="unknown") is not None


def test_one_that_leaves_goes_when_it_is_empty_or_has_had_its_time() -> None:
    row = member("leaving")
    assert step(row, node="draining") is None
    assert step(row, node="empty") == Down("why")
    assert step(row, node="silent") == Down("why")
    assert step(row, cluster="stopped", node="draining") == Down("why")
    assert step(row, LEAVE_S + 1, node="draining") == Down("why")
    # Its cloud ends it anyway: requests may have all the time there is.
    assert step(row, LEAVE_S + 1, node="draining", notice=True) is None


@pytest.mark.parametrize("request_state", ["done", "failed", "unknown", None])
@pytest.mark.parametrize("cluster", ["up", "init", "stopped", "unknown"])
def test_what_may_cost_money_is_taken_down_until_it_is_gone(
    request_state: str | None, cluster: str
) -> None:
    row = member("ending", request=None if request_state is None else "r2")
    assert step(row, 10**6, request=request_state, cluster=cluster) == Down("why")


def test_it_is_gone_when_its_cluster_is() -> None:
    row = member("ending", request="r2")
    assert step(row, request="running", cluster="up") is None
    assert step(row, request="running", cluster="none") is None
    assert step(row, request="done", cluster="none") == Become("gone", "why")
    assert step(row, request="unknown", cluster="none") == Become("gone", "why")
    assert step(member("gone"), 10**6, wish="down") is None


def test_one_whose_launch_failed_is_asked_for_again_after_a_while_not_at_once() -> None:
    row = replace(member("launching"), not_before_ns=START_NS + 60 * SECOND_NS)
    assert step(row, 1, cluster="none") is None
    assert step(row, 61, cluster="none") == Launch()
    assert step(row, 1, cluster="up") == Become("joining")


def test_one_that_never_comes_back_after_a_restart_of_the_appliance_is_given_up() -> None:
    row = member("running")
    assert step(row, node="absent", silent_s=30.0) is None
    assert isinstance(step(row, node="absent", silent_s=SILENT_S + 1.0), Down)
