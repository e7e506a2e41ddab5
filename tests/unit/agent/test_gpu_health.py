"""From figures to faults to scores: what is raised, what clears it, what it does to a node."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agent.gpu.faults import CLEAR_S, FAULTS, Condition, FaultTracker, conditions
from agent.gpu.health import (
    RISE_S,
    Reading,
    Steady,
    engines,
    floor_of,
    judge_gpus,
    node_health,
    warmest,
)
from agent.gpu.inventory import Inventory, View
from agent.gpu.messages import DriverFailed, GpuFailed, Line, XidSeen
from agent.gpu.xids import XIDS
from appliance.wire.agent import ReplicaReport, ReplicaState
from appliance.wire.gpu import GpuLink, NodeHealth
from tests.fakes.gpus import driver_read, gpu_read

NS = 1_000_000_000


def seen(*lines: Line, count: int = 2) -> View:
    inventory = Inventory("boot-1", None)
    inventory.began(0.0)
    inventory.take(driver_read(count), 0.1)
    for index in range(count):
        inventory.take(gpu_read(index), 0.1)
    for line in lines:
        inventory.take(line, 0.2)
    return inventory.view(0.3)


def judged(view: View, reports: Sequence[ReplicaReport] = (), now_ns: int = 0) -> NodeHealth:
    faults = conditions(view, now_ns)
    return node_health(
        faults,
        engines(reports),
        warmest(view.gpus),
        floor=floor_of(judge_gpus(view.gpus, faults)),
    )


def scores(health: NodeHealth) -> dict[str, int]:
    return {part.name: part.score for part in health.parts}


def codes(health: NodeHealth) -> set[str]:
    return {fault.code for fault in health.faults}


def links(*down: int) -> tuple[GpuLink, ...]:
    return tuple(GpuLink(link=link, up=link not in down) for link in range(4))


def test_a_node_in_good_health_has_six_parts_of_a_hundred() -> None:
    health = judged(seen())
    assert (health.score, health.state, health.faults) == (100, "ok", ())
    assert scores(health) == dict.fromkeys(
        ("engine", "temperature", "memory", "processor", "network", "faults"), 100
    )


@pytest.mark.parametrize(
    ("figures", "code", "part", "score"),
    [
        ({"ecc_uncorrected": 3}, "ECC_UNCORRECTED", "memory", 40),
        ({"remap_pending": True}, "REMAP_PENDING", "memory", 60),
        ({"remap_failed": True, "remap_pending": True}, "REMAP_FAILED", "memory", 20),
        (
            {"throttle_reasons": ("sw_thermal_slowdown", "hw_thermal_slowdown")},
            *("THERMAL_SLOWDOWN", "temperature", 40),
        ),
        ({"throttle_reasons": ("sw_thermal_slowdown",)}, "THERMAL_LIMIT", "temperature", 60),
        ({"temperature": 88}, "TEMPERATURE_HIGH", "temperature", 60),
        ({"throttle_reasons": ("hw_power_brake_slowdown",)}, "POWER_BRAKE", "processor", 60),
        ({"throttle_reasons": ("hw_slowdown",)}, "HARDWARE_SLOWDOWN", "processor", 60),
        ({"links": links(1, 3)}, "NVLINK_DOWN", "network", 60),
    ],
)
def test_what_a_figure_says_lowers_its_part_alone(
    figures: dict[str, Any], code: str, part: str, score: int
) -> None:
    health = judged(seen(gpu_read(1, **figures)))
    assert codes(health) == {code}
    assert scores(health) == {**dict.fromkeys(scores(judged(seen())), 100), part: score}
    assert (health.score, health.state) == (score, "degraded")
    (fault,) = health.faults
    assert fault.gpu_uuid == "GPU-1"
    assert "GPU 1" in fault.message
    assert fault.next_step
    named = next(p for p in health.parts if p.name == part)
    assert fault.next_step in named.reason


def test_work_at_full_power_is_no_fault() -> None:
    busy = gpu_read(0, throttle_reasons=("sw_power_cap", "gpu_idle", "applications_clocks_setting"))
    assert judged(seen(busy)).score == 100


def test_links_that_were_never_up_are_no_fault_unless_a_twin_has_them() -> None:
    inventory = Inventory("boot-1", None)
    inventory.began(0.0)
    inventory.take(driver_read(1), 0.1)
    inventory.take(gpu_read(0, links=links(2, 3)), 0.1)  # a bridge over two of four
    assert conditions(inventory.view(0.2), 0) == []
    inventory.take(driver_read(2), 0.2)
    inventory.take(gpu_read(1), 0.2)
    (condition,) = conditions(inventory.view(0.3), 0)
    assert (condition.code, condition.uuid) == ("NVLINK_DOWN", "GPU-0")
    assert "2 of 4: 2, 3" in condition.message


def test_one_lost_gpu_degrades_the_node_and_the_last_one_fails_it() -> None:
    lost = [
        GpuFailed(index=i, uuid=f"GPU-{i}", trouble="GPU_LOST", detail="GPU is lost")
        for i in range(2)
    ]
    one = judged(seen(lost[1]))
    assert (one.score, one.state, codes(one)) == (20, "degraded", {"GPU_LOST"})
    both = judged(seen(*lost))
    assert (both.score, both.state) == (0, "failed")
    verdicts = judge_gpus(seen(lost[1]).gpus, conditions(seen(lost[1]), 0))
    assert verdicts == {"GPU-0": (100, "ok"), "GPU-1": (0, "gone")}


@pytest.mark.parametrize("trouble", ["DRIVER_MISMATCH", "DRIVER_NOT_LOADED", "NO_DRIVER"])
def test_without_a_driver_nothing_can_run(trouble: Any) -> None:
    health = judged(seen(DriverFailed(trouble=trouble, detail="why")))
    assert (health.score, health.state, codes(health)) == (0, "failed", {trouble})
    assert len(health.faults) == 1
    assert health.faults[0].gpu_uuid is None


@pytest.mark.parametrize(
    ("xid", "score", "state", "until_s"),
    [(79, 20, "degraded", None), (31, 70, "degraded", 600), (48, 30, "degraded", None)],
)
def test_an_xid_counts_for_as_long_as_its_kind(
    xid: int, score: int, state: str, until_s: int | None
) -> None:
    view = seen(XidSeen(uuid="GPU-0", xid=xid, at_ns=5 * NS))
    health = judged(view, now_ns=6 * NS)
    assert (health.score, health.state, codes(health)) == (score, state, {f"XID_{xid}"})
    assert health.faults[0].since_ns == 5 * NS
    much_later = (5 + (until_s or 10**6)) * NS
    assert judged(view, now_ns=much_later).score == (100 if until_s else score)


def test_an_unknown_xid_is_an_error_all_the_same() -> None:
    health = judged(seen(XidSeen(uuid="GPU-0", xid=4711, at_ns=0)))
    assert (codes(health), health.faults[0].severity) == ({"XID_4711"}, "error")


def test_heat_tells_before_it_harms() -> None:
    found = [
        judged(seen(gpu_read(0, temperature=celsius))).score for celsius in (70, 77, 80, 86, 87)
    ]
    assert found == [100, 100, 94, 82, 60]


@pytest.mark.parametrize(("state", "score"), [("backoff", 60), ("failed", 60), ("ready", 100)])
def test_engines_that_do_not_come_up_lower_their_part(state: ReplicaState, score: int) -> None:
    report = ReplicaReport(
        replica_id="rep_1", deployment_id="d", generation=1, state=state, reason="No such model."
    )
    health = judged(seen(), [report])
    assert scores(health)["engine"] == score
    if score < 100:
        assert "rep_1: No such model." in next(p.reason for p in health.parts if p.name == "engine")


def test_an_engine_that_fails_beside_one_that_runs_says_little_of_the_node() -> None:
    def report(replica_id: str, state: ReplicaState) -> ReplicaReport:
        return ReplicaReport(
            replica_id=replica_id, deployment_id="d", generation=1, state=state, reason="Why."
        )

    health = judged(seen(), [report("rep_1", "ready"), report("rep_2", "backoff")])
    assert (scores(health)["engine"], health.state) == (90, "ok")
    reason = next(part.reason for part in health.parts if part.name == "engine")
    assert reason == "1 of 2 engines cannot run: rep_2: Why."


# Time.


def a_condition(code: str = "ECC_UNCORRECTED", uuid: str = "GPU-0") -> Condition:
    return Condition(code, FAULTS[code], "It is so.", uuid)


def test_a_fault_is_cleared_when_it_has_been_away_for_a_while() -> None:
    tracker = FaultTracker(0.0)
    assert [c.since_ns for c in tracker.update([a_condition()], 100.0, 7)] == [7]
    assert tracker.update([], 100.0 + CLEAR_S - 0.1, 8)
    assert tracker.update([], 100.0 + CLEAR_S, 9) == []
    assert [c.since_ns for c in tracker.update([a_condition()], 200.0, 10)] == [10]


def test_what_comes_and_goes_is_one_fault() -> None:
    tracker = FaultTracker(0.0)
    since = {
        c.since_ns
        for second in range(100, 160)
        for c in tracker.update([a_condition()] if second % 5 == 0 else [], second, second)
    }
    assert since == {100}


def test_a_moment_of_heat_is_no_fault_and_three_seconds_are() -> None:
    tracker = FaultTracker(0.0)
    hot = a_condition("THERMAL_SLOWDOWN")
    assert tracker.update([hot], 100.0, 1) == []
    assert tracker.update([], 101.0, 2) == []
    assert tracker.update([hot], 102.0, 3) == []
    assert tracker.update([hot], 104.0, 4) == []
    assert len(tracker.update([hot], 105.0, 5)) == 1


def test_an_agent_that_has_just_started_does_not_call_an_old_fault_cleared() -> None:
    tracker = FaultTracker(100.0)
    assert len(tracker.update([a_condition("THERMAL_SLOWDOWN")], 101.0, 1)) == 1


def test_a_reading_falls_at_once_and_rises_late() -> None:
    steady = Steady()
    assert steady.hold(Reading(60, "hot"), 0.0).score == 60
    assert steady.hold(Reading(100), 1.0).score == 60
    assert steady.hold(Reading(70, "warm"), 5.0).score == 60
    assert steady.hold(Reading(60, "hot"), 8.0).score == 60  # and the wait begins anew
    assert steady.hold(Reading(100), 9.0).score == 60
    assert steady.hold(Reading(100), 9.0 + RISE_S).score == 100


def test_every_fault_says_what_to_do_in_sentences() -> None:
    for kind in (*FAULTS.values(), *XIDS.values()):
        assert kind.next_step.endswith(".")
        assert 0 <= kind.score < 80  # what is no harm is no fault
        assert (kind.severity == "fatal") == (kind.score == 0)


def test_no_node_can_claim_a_health_beyond_the_best() -> None:
    raw = msgspec.json.encode(judged(seen())).replace(b'"score":100', b'"score":101')
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=NodeHealth)
