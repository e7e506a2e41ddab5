"""When engines are unloaded, and what those who ask meanwhile are told."""

from dataclasses import replace

from appliance.domain.ids import DeploymentId, ReplicaId, TenantId
from appliance.fleet.idle import Idle
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import (
    DeploymentView,
    Loading,
    ReplicaView,
    Shed,
    ShedReason,
    Ticket,
)
from appliance.settings import Scheduling
from tests.fakes.deployments import deployment_row

D1 = DeploymentId("dep_1")
ROW = replace(deployment_row(), idle_s=60)


def view(asked_at_s: float | None = None, *, queued: int = 0, running: int = 0) -> DeploymentView:
    target = ReplicaTarget(
        *(ReplicaId("rep_1"), D1, "a", "127.0.0.1", 1, False, "", None, None, 4, None, None),
        operations=frozenset(),
    )
    replica = ReplicaView(target, running, 4, 0, 50.0, 0, 0.0, trusted=True)
    return DeploymentView(D1, queued, (replica,), asked_at_s)


def test_it_is_unloaded_after_its_time_and_loaded_when_somebody_asks() -> None:
    idle = Idle()
    assert not idle.unloaded([ROW], {D1: view()}, (), 100.0)
    assert not idle.unloaded([ROW], {D1: view()}, (), 159.0)
    assert idle.unloaded([ROW], {D1: view()}, (), 160.0) == {D1}
    assert not idle.unloaded([ROW], {D1: view(asked_at_s=161.0)}, (), 161.5)


def test_what_is_at_work_or_on_its_way_is_not_idle() -> None:
    idle = Idle()
    idle.unloaded([ROW], {}, (), 0.0)
    assert not idle.unloaded([ROW], {D1: view(running=1)}, (), 500.0)
    assert not idle.unloaded([ROW], {D1: view(queued=1)}, (), 1_000.0)
    assert not idle.unloaded([ROW], {D1: view()}, {D1}, 1_500.0), "it still loads"
    assert not idle.unloaded([ROW], {D1: view()}, (), 1_559.0)
    assert idle.unloaded([ROW], {D1: view()}, (), 1_560.0) == {D1}


def test_only_those_that_are_told_to() -> None:
    idle = Idle()
    rows = [replace(ROW, idle_s=None), replace(ROW, id=DeploymentId("dep_2"), suspended=True)]
    idle.unloaded(rows, {}, (), 0.0)
    assert not idle.unloaded(rows, {}, (), 1e9)


def shed(loading: Loading, now_s: float) -> Shed:
    scheduler = Scheduler(Scheduling())
    scheduler.set_replicas(D1, [], 0.0, 1, loading)
    answer = scheduler.arrive(Ticket(D1, TenantId("ten_1"), 10), now_s)
    assert isinstance(answer, Shed)
    assert answer.reason is ShedReason.MODEL_LOADING
    (seen,) = scheduler.view(now_s)
    assert seen.asked_at_s == now_s
    return answer


def test_who_asks_is_told_how_long_it_takes() -> None:
    assert shed(Loading(41.2), 100.0).retry_after_s == 42
    assert shed(Loading(41.2, ready_at_s=130.0), 100.0).retry_after_s == 30
    assert shed(Loading(41.2, ready_at_s=90.0), 100.0).retry_after_s == 5, "longer than thought"
    assert shed(Loading(0.2), 100.0).retry_after_s == 1
    assert shed(Loading(1e6), 100.0).retry_after_s == 3_600
    assert shed(Loading(), 100.0).retry_after_s == 5, "nobody knows"
